//! A chart: what is drawn, whatever it is drawn on.

/// One chart with its own axes.
#[derive(Clone, Debug)]
pub struct Chart {
    /// File name without extension.
    pub name: &'static str,
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Values of y that are drawn across, such as the ground truth's.
    pub levels: Vec<(String, f64)>,
}

#[derive(Clone, Debug)]
pub struct Axis {
    pub label: &'static str,
    pub log: bool,
    /// Least and greatest value shown; all of them where absent.
    pub range: Option<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub struct Series {
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// Colour, marker shape and dash: equal in all charts for what is equal.
    pub style: usize,
    pub markers: bool,
}

impl Axis {
    pub fn linear(label: &'static str) -> Self {
        Self { label, log: false, range: None }
    }

    pub fn log(label: &'static str) -> Self {
        Self { label, log: true, range: None }
    }

    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: Some((low, high)), ..self }
    }
}

impl Chart {
    /// Whether there is anything to see.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The numbers, as CSV.
    pub fn csv(&self) -> String {
        let mut text = format!("series,{},{}\n", super::csv::cell(self.x.label), super::csv::cell(self.y.label));
        for series in &self.series {
            for (x, y) in &series.points {
                text += &format!("{},{x},{y}\n", super::csv::cell(&series.label));
            }
        }
        for (label, y) in &self.levels {
            text += &format!("{},,{y}\n", super::csv::cell(label));
        }
        text
    }

    /// The ends of both axes.
    pub fn ends(&self) -> (Ends, Ends) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let levels = self.levels.iter().map(|(_, y)| *y);
        (Ends::new(&self.x, points().map(|p| p.0)), Ends::new(&self.y, points().map(|p| p.1).chain(levels)))
    }

    /// The parts of a line that lie between the ends of the axes.
    pub fn inside(&self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let (x, y) = self.ends();
        let places: Vec<(f64, f64)> = points.iter().filter_map(|p| Some((x.place(p.0)?, y.place(p.1)?))).collect();
        let back = |part: Vec<(f64, f64)>| part.into_iter().map(|p| (x.value(p.0), y.value(p.1))).collect();
        inside(&places).into_iter().map(back).collect()
    }
}

/// Where an axis begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

impl Ends {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let log = axis.log;
        if let Some((low, high)) = axis.range {
            return Self { low, high, log };
        }
        let (low, high) = values
            .filter(|v| v.is_finite() && (!log || *v > 0.0))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self { low: 1.0, high: 10.0, log };
        }
        let (a, b) = if log { (low.ln(), high.ln()) } else { (low, high) };
        // A single value has room around it.
        let alone = if log { 0.3 } else { 0.06 * a.abs().max(1.0) };
        let room = if b > a { 0.06 * (b - a) } else { alone };
        let (low, high) = if log { ((a - room).exp(), (b + room).exp()) } else { (a - room, b + room) };
        Self { low, high, log }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high one; `None` where it has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let of = |v: f64| if self.log { v.ln() } else { v };
        let at = (of(value) - of(self.low)) / (of(self.high) - of(self.low));
        at.is_finite().then_some(at)
    }

    /// What lies at `place`.
    fn value(&self, place: f64) -> f64 {
        if self.log { self.low * (self.high / self.low).powf(place) } else { self.low + place * (self.high - self.low) }
    }

    /// Values to mark on a log axis, however short it is.
    pub fn log_ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let among = |multiples: &[f64], every: i32| -> Vec<f64> {
            (first..=last)
                .filter(|power| power.rem_euclid(every) == 0)
                .flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power)))
                .filter(|v| (self.low..=self.high).contains(v))
                .collect()
        };
        let choices: [(&[f64], i32); 6] = [
            (&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], 1),
            (&[1.0, 2.0, 3.0, 5.0], 1),
            (&[1.0, 2.0, 5.0], 1),
            (&[1.0, 3.0], 1),
            (&[1.0], 1),
            (&[1.0], 3),
        ];
        choices.iter().map(|(m, every)| among(m, *every)).find(|t| t.len() <= 8).unwrap_or_else(|| vec![self.low])
    }
}

/// A value as an axis says it.
pub fn written(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || size < 1e-12 {
        "0".into()
    } else if (1e-3..1e5).contains(&size) {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.0e}")
    }
}

/// The parts of a line that lie between y = 0 and 1.
fn inside(points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut open = false;
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let cut = |bound: f64| if y1 == y0 { 0.0 } else { ((bound - y0) / (y1 - y0)).clamp(0.0, 1.0) };
        let (a, b) = (cut(0.0), cut(1.0));
        let (from, to) = match (y0 <= y1, (0.0..=1.0).contains(&y0), (0.0..=1.0).contains(&y1)) {
            (_, true, true) => (0.0, 1.0),
            (true, ..) => (if y0 < 0.0 { a } else { 0.0 }, if y1 > 1.0 { b } else { 1.0 }),
            (false, ..) => (if y0 > 1.0 { b } else { 0.0 }, if y1 < 0.0 { a } else { 1.0 }),
        };
        let at = |f: f64| (x0 + f * (x1 - x0), y0 + f * (y1 - y0));
        if from < to && y0.max(y1) >= 0.0 && y0.min(y1) <= 1.0 {
            if !open || from > 0.0 {
                parts.push(vec![at(from)]);
            }
            if let Some(part) = parts.last_mut() {
                part.push(at(to));
            }
            open = to == 1.0;
        } else {
            open = false;
        }
    }
    parts
}
