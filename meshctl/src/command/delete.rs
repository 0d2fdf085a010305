//! `delete`: removes resources, by name or as files name them, as one commit.

use super::Session;
use crate::{
    args::DeleteArgs,
    documents::Documents,
    edit::Wish,
    failure::{Exit, Failure},
    resource,
};

/// Deletes.
pub(crate) async fn run(session: &Session, args: &DeleteArgs) -> Result<Exit, Failure> {
    let keys = if args.files.is_empty() {
        vec![resource::key(&args.resource, args.namespace.as_deref())?]
    } else {
        Documents::read(&args.files)?
            .all
            .iter()
            .map(mesh_model::document::Document::key)
            .collect()
    };
    let mut wishes = Vec::new();
    for key in keys {
        let row = resource::demand(&session.client, &key).await?;
        let mut wish = Wish::delete(key, &row);
        // Deleting what is in conflict ends the conflict: every version is a base.
        wish.bases.extend(row.conflicts.iter().copied());
        wishes.push(wish);
    }
    session.editor(&args.edit)?.commit(&wishes, &[]).await
}
