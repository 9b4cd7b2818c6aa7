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

    /// Both axes as they are drawn.
    pub fn scales(&self) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let levels = self.levels.iter().map(|(_, y)| *y);
        (Scale::new(&self.x, points().map(|p| p.0)), Scale::new(&self.y, points().map(|p| p.1).chain(levels)))
    }
}

/// An axis with its ends settled.
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let log = axis.log;
        let (mut low, mut high) = axis.range.unwrap_or_else(|| {
            values
                .filter(|v| v.is_finite() && (!log || *v > 0.0))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if axis.range.is_none() {
            let (a, b) = if log { (low.ln(), high.ln()) } else { (low, high) };
            let room = if b > a {
                0.06 * (b - a)
            } else if log {
                0.3
            } else {
                0.06 * a.abs().max(1.0)
            };
            (low, high) = if log { ((a - room).exp(), (b + room).exp()) } else { (a - room, b + room) };
        }
        Self { low, high, log }
    }

    /// Where `value` lies: 0 at the low end, 1 at the high one; `None` where it has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let of = |v: f64| if self.log { v.ln() } else { v };
        let at = (of(value) - of(self.low)) / (of(self.high) - of(self.low));
        at.is_finite().then_some(at)
    }

    /// Values to mark, and how they are written.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks() } else { self.linear_ticks() };
        values.into_iter().map(|v| (v, written(v))).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high + 1e-9 * step).take(20).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
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

fn written(value: f64) -> String {
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
