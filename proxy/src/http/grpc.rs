//! What is particular to gRPC: deadlines, outcomes in trailers, errors as trailers-only answers.
//!
//! Source: "gRPC over HTTP/2" and gRFC A6.

use std::time::Duration;

use super::{message::Request, octet};

/// `UNAVAILABLE`: the code that says "try again".
pub(crate) const UNAVAILABLE: u8 = 14;

/// The caller's own deadline (`grpc-timeout`), when the request is gRPC and has one.
pub(crate) fn deadline(request: &Request) -> Option<Duration> {
    if !request.wishes.grpc {
        return None;
    }
    let value = request.fields.named(b"grpc-timeout").next()?;
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number = octet::number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines() {
        for (value, wanted) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("1", None),
            ("S", None),
            ("123456789m", None),
            ("-1S", None),
        ] {
            let mut request = Request::default();
            request.fields.push(b"grpc-timeout", value.as_bytes());
            assert_eq!(deadline(&request), None);
            request.wishes.grpc = true;
            assert_eq!(deadline(&request), wanted, "{value}");
        }
    }
}
