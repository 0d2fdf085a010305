//! Pauses inside a long plan, made by the caller.

use std::fmt;

/// What a plan calls about once for each endpoint that it looks at, so that its caller may let others compute in
/// between: this room knows neither threads nor time. The plan does not depend on it.
#[derive(Clone, Copy)]
pub struct Breath<'a>(Option<&'a dyn Fn()>);

impl<'a> Breath<'a> {
    /// Without pauses.
    pub const NONE: Self = Self(None);

    /// Pauses as `pause` sees fit.
    pub const fn new(pause: &'a dyn Fn()) -> Self {
        Self(Some(pause))
    }

    pub(crate) fn take(self) {
        if let Some(pause) = self.0 {
            pause();
        }
    }

    /// Frees very many values with pauses in between.
    pub(crate) fn free<T>(self, values: impl IntoIterator<Item = T>) {
        values.into_iter().for_each(|value| {
            drop(value);
            self.take();
        });
    }
}

impl fmt::Debug for Breath<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Breath({})", self.0.is_some())
    }
}
