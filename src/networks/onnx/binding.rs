//! What a graph is given that stays for a whole solve, bound once.

use super::session::{Session, View, ViewMut, api, checked, reported};
use crate::error::{Error, Result};
use crate::inputs::Column;
use ort::sys;
use parking_lot::Mutex;
use std::ffi::{CStr, CString};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// A session with the inputs that do not change from evaluation to evaluation: on the processor they stay where they
/// are, to another device they are copied once. Any number of threads.
pub(super) struct Binding {
    handle: Mutex<Handle>,
    session: Arc<Session>,
    /// By the graph's names. What is bound lies in their memory.
    columns: Vec<(CString, Column)>,
}

impl Binding {
    /// Binds `columns` to the inputs of these names.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn new(session: Arc<Session>, columns: Vec<(CString, Column)>) -> Result<Self> {
        let mut handle = Handle::new(&session)?;
        for (name, column) in &columns {
            let shape = super::sizes(column.batch(), column.shape())?;
            handle.input(name, &View::new(column.dtype(), &shape, column.bytes())?)?;
        }
        Ok(Self { handle: Mutex::new(handle), session, columns })
    }

    /// Whether it is one of `session`.
    pub fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session)
    }

    /// Runs the graph on what is bound and `inputs`, into the memory of `output`. Where another thread is at it, with a
    /// binding of its own.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run(&self, inputs: &[(&CStr, View<'_>)], output: (&CStr, ViewMut<'_>)) -> Result<()> {
        match self.handle.try_lock() {
            Some(mut handle) => handle.run(&self.session, inputs, output),
            None => Self::new(self.session.clone(), self.columns.clone())?.handle.get_mut().run(
                &self.session,
                inputs,
                output,
            ),
        }
    }
}

/// ONNX Runtime's binding, of a session that outlives it.
struct Handle(NonNull<sys::OrtIoBinding>);

// SAFETY: a binding belongs to no thread; `&mut` is asked for wherever it is used.
unsafe impl Send for Handle {}

impl Handle {
    fn new(session: &Session) -> Result<Self> {
        let mut binding = null_mut();
        // SAFETY: the session lives, and the binding is written where there is room for it.
        checked(unsafe { (api().CreateIoBinding)(session.as_ptr(), &mut binding) }).map_err(reported)?;
        NonNull::new(binding).map(Self).ok_or_else(|| Error::Onnx("made no binding".into()))
    }

    fn input(&mut self, name: &CStr, value: &View<'_>) -> Result<()> {
        // SAFETY: the name is NUL-terminated; the value lives, and is kept by the binding. Its memory lives as long as
        // it is read: that of columns as long as the binding, that of a run as long as that.
        checked(unsafe { (api().BindInput)(self.0.as_ptr(), name.as_ptr(), value.as_ptr()) }).map_err(reported)
    }

    /// Binds anew what the last run had, which is gone, and runs.
    fn run(
        &mut self,
        session: &Session,
        inputs: &[(&CStr, View<'_>)],
        (name, mut output): (&CStr, ViewMut<'_>),
    ) -> Result<()> {
        for (name, value) in inputs {
            self.input(name, value)?;
        }
        // SAFETY: as in `input`; the output's memory is borrowed mutably, and is unbound below.
        let bound = unsafe { (api().BindOutput)(self.0.as_ptr(), name.as_ptr(), output.as_ptr()) };
        let ran = checked(bound).map_err(reported).and_then(|()| session.run(self.0));
        // SAFETY: the binding lives.
        unsafe { (api().ClearBoundOutputs)(self.0.as_ptr()) };
        ran
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is released once, before its session.
        unsafe { (api().ReleaseIoBinding)(self.0.as_ptr()) }
    }
}
