//! To come.

use crate::stage::Group;

pub const GROUPS: &[Group] = &[];
