//! Fields of Marathon's JSON: what is not of the kind that is meant is none.

use serde_json::Value;

/// The text of a field.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The elements of a field; none where there is no list.
pub(super) fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], |all| all)
}
