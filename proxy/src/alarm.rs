//! One timer for a whole connection, so that a request costs none.
//!
//! It is armed for the earliest time that was ever asked for and looks again when it goes off; moving a
//! deadline further away, which is what each request does, touches nothing.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;

/// A timer.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `deadline` has passed; never for none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let wanted = tokio::time::Instant::from_std(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wanted)));
        if sleep.deadline() > wanted {
            sleep.as_mut().reset(wanted);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if tokio::time::Instant::now() >= wanted {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(wanted);
        }
        Poll::Pending
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn goes_off_at_the_last_deadline_asked_for() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let wait = Duration::from_millis(40);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            // First armed for a time that is then moved away twice.
            let deadline = if polls == 1 { wait / 4 } else { wait };
            alarm.poll(cx, Some(start + deadline))
        })
        .await;
        assert!(start.elapsed() >= wait && polls >= 2, "{polls}");
        poll_fn(|cx| alarm.poll(cx, Some(start))).await;
        assert!(
            poll_fn(|cx| Poll::Ready(alarm.poll(cx, None)))
                .await
                .is_pending()
        );
        // Armed far away, then asked for something near.
        let far = Some(Instant::now() + Duration::from_mins(1));
        assert!(
            poll_fn(|cx| Poll::Ready(alarm.poll(cx, far)))
                .await
                .is_pending()
        );
        let near = Some(Instant::now() + Duration::from_millis(5));
        poll_fn(|cx| alarm.poll(cx, near)).await;
    }
}
