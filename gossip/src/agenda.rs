//! What is due when: timers as data, so that one clock outside serves all.

use std::{collections::BTreeMap, time::Duration};

use foca::Timer;

use crate::member::MemberId;

/// Things that are due at most once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Single {
    /// Own head must be signed and sent.
    OwnHead,
    /// The wait for peers at the start is over.
    Open,
    /// Links are to be opened or given up.
    Overlay,
    /// A host that is down is to be tried.
    Redial,
    /// Compare with a random host.
    Sync,
    /// Own head grows old.
    Refresh,
    /// Leases, grants, suspicions.
    Housekeep,
    /// A tentative change reaches its time.
    Values,
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    Single(Single),
    Swim(Timer<MemberId>),
}

/// All that is due, in order.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    singles: BTreeMap<Single, Duration>,
    swim: BTreeMap<(Duration, u64), Timer<MemberId>>,
    next: u64,
    announced: Option<Duration>,
}

impl Agenda {
    /// Makes `single` due at `at`, whatever was planned.
    pub(crate) fn set(&mut self, single: Single, at: Duration) {
        self.singles.insert(single, at);
    }
    /// Makes `single` due at `at` unless it is due earlier.
    pub(crate) fn at_latest(&mut self, single: Single, at: Duration) {
        let planned = self.singles.entry(single).or_insert(at);
        *planned = (*planned).min(at);
    }
    pub(crate) fn clear(&mut self, single: Single) {
        self.singles.remove(&single);
    }
    pub(crate) fn swim(&mut self, at: Duration, timer: Timer<MemberId>) {
        self.next = self.next.wrapping_add(1);
        self.swim.insert((at, self.next), timer);
    }
    /// When what is due is overdue by more than `patience`, this host itself stood still: a stopped process,
    /// a paused machine. Then nobody else is to blame for its silence, and membership goes on where it was.
    pub(crate) fn forgive(&mut self, now: Duration, patience: Duration) {
        let next = self.swim.first_key_value().map(|((at, _), _)| *at);
        let Some(late) = next
            .map(|at| now.saturating_sub(at))
            .filter(|late| *late > patience)
        else {
            return;
        };
        let swim = std::mem::take(&mut self.swim);
        self.swim = swim
            .into_iter()
            .map(|((at, number), timer)| ((at + late, number), timer))
            .collect();
        self.announced = None;
    }
    /// Takes the next thing that is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Due> {
        let single = self.singles.iter().map(|(kind, at)| (*at, *kind)).min();
        let swim = self.swim.first_key_value().map(|(key, _)| *key);
        match (single, swim) {
            (Some((at, kind)), other)
                if at <= now && other.is_none_or(|(first, _)| at <= first) =>
            {
                self.singles.remove(&kind);
                Some(Due::Single(kind))
            }
            (_, Some((at, _))) if at <= now => {
                self.swim.pop_first().map(|(_, timer)| Due::Swim(timer))
            }
            _ => None,
        }
    }
    /// The wait until the next thing, when it differs from the one announced last.
    pub(crate) fn wake(&mut self, now: Duration) -> Option<Duration> {
        let single = self.singles.values().min().copied();
        let swim = self.swim.first_key_value().map(|((at, _), _)| *at);
        let next = single.into_iter().chain(swim).min()?;
        if self.announced == Some(next) {
            return None;
        }
        self.announced = Some(next);
        Some(next.saturating_sub(now))
    }
    /// The announced wait is over: the next one is announced even when it is the same.
    pub(crate) fn woken(&mut self) {
        self.announced = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_wake() {
        let at = Duration::from_millis;
        let mut agenda = Agenda::default();
        agenda.set(Single::Sync, at(20));
        agenda.set(Single::Overlay, at(10));
        assert_eq!(agenda.wake(at(0)), Some(at(10)));
        assert_eq!(agenda.wake(at(0)), None);
        agenda.at_latest(Single::Overlay, at(15));
        agenda.swim(at(12), Timer::PeriodicGossip(0));
        assert!(agenda.pop(at(5)).is_none());
        assert!(matches!(
            agenda.pop(at(50)),
            Some(Due::Single(Single::Overlay))
        ));
        assert!(matches!(agenda.pop(at(50)), Some(Due::Swim(_))));
        assert!(matches!(
            agenda.pop(at(50)),
            Some(Due::Single(Single::Sync))
        ));
        assert!(agenda.pop(at(50)).is_none());
        agenda.swim(at(70), Timer::PeriodicGossip(0));
        agenda.swim(at(90), Timer::PeriodicGossip(1));
        agenda.forgive(at(80), at(10));
        assert!(matches!(
            agenda.pop(at(80)),
            Some(Due::Swim(Timer::PeriodicGossip(0)))
        ));
        agenda.forgive(at(1090), at(10));
        assert!(agenda.pop(at(1089)).is_none());
        assert!(matches!(agenda.pop(at(1090)), Some(Due::Swim(_))));
        agenda.set(Single::Sync, at(60));
        agenda.clear(Single::Sync);
        assert_eq!(agenda.wake(at(50)), None);
    }
}
