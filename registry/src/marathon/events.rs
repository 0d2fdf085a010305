//! Server-sent events (WHATWG HTML, 9.2) to hints: pure.
//!
//! In: lines of `/v2/events`. Out: which application to read again. Never: holds more than one bounded event,
//! or believes what an event says: it is a hint.

use std::sync::Arc;

use serde_json::Value;

/// Most bytes of one event; of a longer one only that it came is known.
const MAX_EVENT: usize = 256 << 10;
/// Most bytes of an application's id.
const MAX_ID: usize = 1_024;

/// The events that tell of what is routed. Those of deployments carry whole groups, and tell nothing more.
pub(super) const WANTED: [&str; 6] = [
    "status_update_event",
    "health_status_changed_event",
    "instance_health_changed_event",
    "instance_changed_event",
    "app_terminated_event",
    "api_post_event",
];

/// What to read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// One application, by its id.
    App(Arc<str>),
    /// Everything.
    All,
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(super) struct Framer {
    kind: String,
    data: Vec<u8>,
    seen: bool,
    too_long: bool,
    started: bool,
}

impl Framer {
    /// Takes one line without its end; a hint when an event ended with it.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<Hint> {
        let mut line = line;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.ended();
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(at) => line.split_at(at),
            None => (line, &b":"[..]),
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.kind = String::from_utf8_lossy(value).chars().take(64).collect(),
            b"data" => self.data(value),
            // A comment, an id, a time to wait: nothing to us.
            _ => {}
        }
        None
    }

    fn data(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.seen, true) {
            self.data.push(b'\n');
        }
        if self.data.len() + value.len() > MAX_EVENT {
            self.too_long = true;
            self.data.clear();
        }
        if !self.too_long {
            self.data.extend_from_slice(value);
        }
    }

    fn ended(&mut self) -> Option<Hint> {
        let event = std::mem::replace(
            self,
            Self {
                started: true,
                ..Self::default()
            },
        );
        if !event.seen {
            return None;
        }
        if event.too_long {
            return Some(Hint::All);
        }
        hint(&event.kind, &event.data)
    }
}

/// What an event is about. One that cannot be understood may be about anything.
fn hint(kind: &str, data: &[u8]) -> Option<Hint> {
    let value: Value = serde_json::from_slice(data).unwrap_or_default();
    let named = |name: &str| value.get(name).and_then(Value::as_str);
    let kind = if kind.is_empty() {
        named("eventType").unwrap_or_default()
    } else {
        kind
    };
    if !WANTED.contains(&kind) {
        return None;
    }
    let defined = value.get("appDefinition").and_then(|app| app.get("id"));
    let id = named("appId")
        .or_else(|| named("runSpecId"))
        .or_else(|| defined.and_then(Value::as_str));
    Some(match id {
        Some(id) if is_id(id) => Hint::App(Arc::from(id)),
        _ => Hint::All,
    })
}

/// True for what can be an application's id, and so stand in a path.
pub(super) fn is_id(id: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./".contains(&byte);
    id.len() <= MAX_ID
        && id.starts_with('/')
        && id.bytes().all(plain)
        && !id.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(text: &str) -> Vec<Hint> {
        let mut framer = Framer::default();
        text.lines()
            .filter_map(|line| framer.line(line.as_bytes()))
            .collect()
    }

    fn app(id: &str) -> Hint {
        Hint::App(id.into())
    }

    /// From the documentation of the event stream.
    const STREAM: &str = "\u{feff}event: event_stream_attached\ndata: {\"remoteAddress\":\"0:0:0:0:0:0:0:1\",\"eventType\":\"event_stream_attached\",\"timestamp\":\"2015-09-30T12:44:30.061Z\"}\n\nevent: status_update_event\ndata: {\"slaveId\":\"20150707-S6\",\"taskId\":\"foo.0664256e\",\"taskStatus\":\"TASK_FAILED\",\"message\":\"Failed\",\"appId\":\"/foo\",\"host\":\"srv5\",\"ports\":[31776],\"version\":\"2015-09-30T09:09:17.614Z\",\"eventType\":\"status_update_event\",\"timestamp\":\"2015-09-30T12:44:45.681Z\"}\n\n";

    #[test]
    fn events_name_the_application() {
        assert_eq!(hints(STREAM), [app("/foo")]);
        let all = hints(
            "event: health_status_changed_event\ndata: {\"appId\":\"/a\",\"alive\":true}\n\n\
             event: instance_changed_event\ndata: {\"runSpecId\":\"/prod/b\",\"condition\":\"Running\"}\n\n\
             event: api_post_event\ndata: {\"uri\":\"/v2/apps/x\",\"appDefinition\":{\"id\":\"/c\"}}\n\n\
             event: deployment_success\ndata: {\"id\":\"1\",\"plan\":{}}\n\n\
             data: {\"eventType\":\"app_terminated_event\",\"appId\":\"/d\"}\n\n",
        );
        assert_eq!(all, [app("/a"), app("/prod/b"), app("/c"), app("/d")]);
    }

    #[test]
    fn framing_is_that_of_the_standard() {
        let text = ": heartbeat\n\nid: 7\nretry: 10\n\nevent:status_update_event\ndata:{\ndata: \"appId\":\ndata:\"/foo\"}\nwhatever\n\n\nevent: status_update_event\n\n";
        assert_eq!(hints(text), [app("/foo")]);
        assert_eq!(
            hints("event: status_update_event\ndata: {\"appId\":\"/foo\"}"),
            [],
            "cut off"
        );
        assert_eq!(hints("data\n\n"), []);
    }

    #[test]
    fn what_cannot_be_understood_may_be_about_anything() {
        for data in [
            "{",
            "null",
            "{\"appId\":7}",
            "{\"appId\":\"/../v2/info\"}",
            "{\"appId\":\"/a?b\"}",
        ] {
            let text = format!("event: status_update_event\ndata: {data}\n\n");
            assert_eq!(hints(&text), [Hint::All], "{data}");
        }
        let mut framer = Framer::default();
        framer.line(b"event: status_update_event");
        for _ in 0..1_000 {
            assert_eq!(
                framer.line(&[&b"data: "[..], &[b'x'; 4_096]].concat()),
                None
            );
            assert!(framer.data.len() <= MAX_EVENT);
        }
        assert_eq!(framer.line(b""), Some(Hint::All));
        framer.line(b"event: status_update_event");
        framer.line(b"data: {\"appId\":\"/a\"}");
        assert_eq!(
            framer.line(b""),
            Some(app("/a")),
            "the next one is whole again"
        );
    }
}
