//! A request together with who makes it, as rules see it.

use std::{borrow::Cow, cell::OnceCell};

use mesh_model::snapshot::decide::{RequestView, Source};

use super::message::Request;

/// A request and its caller.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    request: &'a Request,
    source: Source<'a>,
    /// The authority in lower case: made only when a rule asks and it is not so already.
    lower: OnceCell<Box<str>>,
}

impl<'a> Asked<'a> {
    /// A request of a caller.
    pub(crate) fn new(request: &'a Request, source: Source<'a>) -> Self {
        Self {
            request,
            source,
            lower: OnceCell::new(),
        }
    }

    /// The request alone.
    pub(crate) fn request(&self) -> &'a Request {
        self.request
    }
}

impl RequestView for Asked<'_> {
    fn method(&self) -> &str {
        self.request.method()
    }
    fn path(&self) -> &str {
        self.request.path()
    }
    fn query(&self) -> &str {
        self.request.query()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.request.header(name)
    }
    fn authority(&self) -> Option<&str> {
        let text = self.request.authority()?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Some(self.lower.get_or_init(|| text.to_ascii_lowercase().into()))
        } else {
            Some(text)
        }
    }
    fn source(&self) -> Source<'_> {
        self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_in_lower_case() {
        let mut request = Request::default();
        for (said, wanted) in [("Web.Shop:80", "web.shop:80"), ("web", "web")] {
            request.set_authority(said.as_bytes());
            let asked = Asked::new(&request, Source::default());
            assert_eq!(asked.authority(), Some(wanted));
        }
    }
}
