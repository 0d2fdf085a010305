//! Settings to a source: the only match over the kinds.

use mesh_model::config::{SourceConfig, SourceKind};

use crate::{file::FileSource, source::Source};

/// A fresh instance of the source. Nothing is read before it runs.
pub fn open(config: &SourceConfig) -> Box<dyn Source> {
    match &config.kind {
        SourceKind::File { directory } => Box::new(FileSource::new(&config.id, directory)),
    }
}
