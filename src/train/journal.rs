//! What a run leaves on disk as it goes: its log and its checkpoint.

use super::checkpoint::{self, Checkpoint, Spent};
use super::job::Job;
use super::log::Log;
use super::progress::Progress;
use super::schedule::Leg;
use super::settings::Settings;
use super::state::State;
use crate::error::Result;
use crate::ranks::Ranks;
use crate::velocity::Evaluations;
use std::time::Instant;

/// The files of a run under way.
pub struct Journal<'a> {
    job: &'a Job,
    settings: &'a Settings,
    log: Option<Log>,
    begun: Instant,
    /// What earlier parts of the run took.
    before: f64,
}

impl<'a> Journal<'a> {
    /// Opens the log; changes no file that is there.
    pub fn open(job: &'a Job, settings: &'a Settings) -> Result<Self> {
        let log = job.log.as_deref().map(Log::open).transpose()?;
        Ok(Self { job, settings, log, begun: Instant::now(), before: 0.0 })
    }

    /// The first rank's checkpoint, if the run is to go on from there; the log is cut to where it was then.
    pub fn resume(&mut self, legs: &[Leg], ranks: &Ranks) -> Result<Option<Checkpoint<State>>> {
        let path = self.job.checkpoint.as_deref().filter(|_| self.job.resume);
        let found = path.map(|path| checkpoint::load(path, self.job, self.settings, legs)).transpose()?.flatten();
        let found = ranks.of_first(found)?;
        if let Some(log) = &mut self.log {
            log.keep(found.as_ref().map_or(0, |found| found.log_bytes));
        }
        self.before = found.as_ref().map_or(0.0, |found| found.seconds);
        Ok(found)
    }

    /// A line of the log, and a checkpoint where there is something new to lose.
    pub fn record(
        &mut self,
        progress: &Progress,
        ground_truth: Evaluations,
        state: &State,
        stopped: bool,
    ) -> Result<()> {
        let seconds = self.before + self.begun.elapsed().as_secs_f64();
        if let Some(log) = &mut self.log {
            log.write(progress, seconds)?;
        }
        if let Some(path) = self.job.checkpoint.as_deref().filter(|_| state.validated || stopped) {
            let log_bytes = self.log.as_ref().map_or(0, Log::bytes);
            let spent = Spent { evaluations: progress.evaluations, ground_truth, seconds, log_bytes };
            checkpoint::save(path, self.job, self.settings, spent, state)?;
        }
        Ok(())
    }
}
