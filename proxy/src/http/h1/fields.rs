//! Reads the field lines of a head or of trailers.

use super::HeadError;
use crate::http::{
    fields::{Fields, Known, Span},
    octet,
};

/// Reads `lines` (each ended by CRLF, the empty one left out), whose text stands in `fields` from `base` on.
pub(crate) fn read(
    fields: &mut Fields,
    lines: &[u8],
    base: usize,
    mut each: impl FnMut(&Fields, Known, Span) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    let mut at = 0;
    while let Some(line) = lines.get(at..).filter(|line| !line.is_empty()) {
        let colon = octet::token_length(line);
        if colon == 0 || line.get(colon) != Some(&b':') {
            return Err(HeadError::FieldName);
        }
        let rest = line.get(colon + 1..).unwrap_or_default();
        let (value, end) = rest
            .split_at_checked(octet::value_length(rest))
            .ok_or(HeadError::FieldValue)?;
        if !end.starts_with(b"\r\n") {
            return Err(HeadError::FieldValue);
        }
        let next = at + colon + 1 + value.len() + 2;
        let lead = value
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let kept = octet::trim(value).len();
        let start = at + colon + 1 + lead.min(value.len() - kept);
        let name = Fields::span(base, at, at + colon);
        let value = Fields::span(base, start, start + kept);
        let known = fields.push_stored(name, value);
        each(fields, known, value)?;
        at = next;
    }
    Ok(())
}

/// Reads trailers: nothing in them may frame, route or identify a message (RFC 9110 section 6.5.1).
pub(crate) fn read_trailers(section: &[u8]) -> Result<Fields, HeadError> {
    let mut fields = Fields::default();
    let lines = section.strip_suffix(b"\r\n").unwrap_or(section);
    fields.store(lines);
    read(&mut fields, lines, 0, |_, known, _| {
        if known.is_no_trailer() {
            Err(HeadError::Trailer)
        } else {
            Ok(())
        }
    })?;
    fields.drop_where(|known, _| known.is_ours());
    Ok(fields)
}
