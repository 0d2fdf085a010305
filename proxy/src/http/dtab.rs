//! The delegation table that a request brings itself, in `l5d-dtab`.
//!
//! Tables are compiled once per text and generation of the snapshot.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use mesh_model::{
    dtab::Dtab,
    snapshot::{Frontend, Snapshot, Target, decide},
};

use crate::failure::{Code, Failure};

/// The header.
pub(crate) const HEADER: &str = "l5d-dtab";
/// Compiled tables kept by one thread.
const KEPT: usize = 256;

/// The frontend's place in memory, and the text.
type Key = (usize, Box<[u8]>);

#[derive(Default)]
struct Compiled {
    generation: u64,
    targets: HashMap<Key, Option<Rc<Target>>>,
}

thread_local! {
    static COMPILED: RefCell<Compiled> = RefCell::default();
}

/// Where the table leads a call of `frontend`; `None` when it says nothing of it: then the routes act.
pub(crate) fn target(
    snapshot: &Snapshot,
    frontend: &Arc<Frontend>,
    text: &[u8],
) -> Result<Option<Rc<Target>>, Failure> {
    let key = (Arc::as_ptr(frontend) as usize, Box::from(text));
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.generation != snapshot.generation || compiled.targets.len() >= KEPT {
            *compiled = Compiled {
                generation: snapshot.generation,
                ..Compiled::default()
            };
        }
        if let Some(known) = compiled.targets.get(&key) {
            return Ok(known.clone());
        }
        let table = std::str::from_utf8(text)
            .ok()
            .and_then(|text| Dtab::parse(text).ok());
        let Some(table) = table else {
            return Err(Failure::new(
                Code::BadRequest,
                "l5d-dtab is not a delegation table",
            ));
        };
        let target = decide::delegate(snapshot, frontend, &table).map(Rc::new);
        compiled.targets.insert(key, target.clone());
        Ok(target)
    })
}
