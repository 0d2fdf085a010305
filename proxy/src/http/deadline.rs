//! What is left of a request's time, told on to the next hop (`grpc-timeout`).

use std::{io::Write as _, time::Duration};

use super::message::Request;

/// Rewrites the deadline of a gRPC request to what is left.
pub(crate) fn tell(request: &mut Request, left: Duration) {
    let mut buffer = [0u8; 24];
    let micros = left.as_micros();
    // At most eight digits: microseconds to 100 s, milliseconds to a day, then seconds.
    let (number, unit) = if micros < 100_000_000 {
        (micros, 'u')
    } else if micros < 100_000_000_000 {
        (left.as_millis(), 'm')
    } else {
        (u128::from(left.as_secs()).min(99_999_999), 'S')
    };
    let mut rest = &mut buffer[..];
    let whole = write!(rest, "{number}{unit}").is_ok();
    let used = 24 - rest.len();
    if whole && let Some(text) = buffer.get(..used) {
        request.fields.drop_named(b"grpc-timeout");
        request.fields.push(b"grpc-timeout", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::grpc;

    #[test]
    fn what_is_left_is_told_and_read() {
        let mut request = Request::default();
        request.wishes.grpc = true;
        for (left, text) in [
            (Duration::from_millis(250), "250000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_hours(48), "172800S"),
            (Duration::MAX, "99999999S"),
            (Duration::ZERO, "0u"),
        ] {
            tell(&mut request, left);
            let told: Vec<_> = request.fields.named(b"grpc-timeout").collect();
            assert_eq!(told, [text.as_bytes()]);
            let read = grpc::deadline(&request).unwrap();
            assert!(read <= left && left.min(read + Duration::from_secs(1)) >= read);
        }
    }
}
