//! When what is due for one registration: pure, with time and dice passed in.
//!
//! In: what is wanted, what became of the last step. Out: the next step and when. Never: renews later than a
//! third of the life of a registration, except after errors, and then at most a third later.

use std::time::Duration;

use mesh_model::endpoint::Health;

use super::{Lease, Registration, Renewal};

/// What is wanted of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its health.
    pub(super) health: Health,
    /// It should be out of use.
    pub(super) draining: bool,
    /// It should not be there.
    pub(super) gone: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Register,
    Replace(Lease),
    Renew(Lease),
    Drain(Lease),
    Deregister(Lease),
    /// Nothing before then.
    Wait(Duration),
    /// Nothing ever again.
    End,
}

/// The course of one registration.
#[derive(Debug)]
pub(super) struct Course {
    life: Duration,
    lease: Option<Lease>,
    /// What the registry was told last.
    told: Option<Health>,
    drained: bool,
    /// When the next step is due; health that changes does not wait for it.
    due: Duration,
    failures: u32,
}

impl Course {
    /// `now` counts from any beginning. The first steps of many instances are spread over half a second.
    pub(super) fn new(life: Duration, now: Duration, dice: f64) -> Self {
        Self {
            life,
            lease: None,
            told: None,
            drained: false,
            due: now + Duration::from_millis(500).mul_f64(dice.clamp(0.0, 1.0)),
            failures: 0,
        }
    }

    /// True while it stands, as far as is known.
    pub(super) fn stands(&self) -> bool {
        self.lease.is_some()
    }

    /// What to do at `now`, where this is the instance that is wanted.
    pub(super) fn next(&self, of: &Registration, wish: Wish, now: Duration) -> Step {
        let rest = self.due.saturating_sub(now);
        let failing = self.failures > 0 && !rest.is_zero();
        let Some(lease) = self.lease.clone() else {
            return match (wish.gone, rest.is_zero()) {
                (true, _) => Step::End,
                // What is about to go is not announced first.
                (false, _) if wish.draining => Step::Wait(self.life),
                (false, true) => Step::Register,
                (false, false) => Step::Wait(rest),
            };
        };
        if failing {
            return Step::Wait(rest);
        }
        if wish.gone {
            return Step::Deregister(lease);
        }
        if wish.draining && !self.drained {
            return Step::Drain(lease);
        }
        if *lease.of != *of && !wish.draining {
            return Step::Replace(lease);
        }
        if rest.is_zero() || (self.told != Some(wish.health) && !self.drained) {
            return Step::Renew(lease);
        }
        Step::Wait(rest)
    }

    /// It stands.
    pub(super) fn registered(&mut self, lease: Lease, health: Health, now: Duration, dice: f64) {
        self.lease = Some(lease);
        self.drained = false;
        self.good(Some(health), now, dice);
    }

    /// It was renewed, or it is lost.
    pub(super) fn renewed(&mut self, how: Renewal, health: Health, now: Duration, dice: f64) {
        match how {
            Renewal::Kept => self.good(Some(health), now, dice),
            Renewal::Lost => {
                self.lease = None;
                self.told = None;
                self.failures = 0;
                self.due = now;
            }
        }
    }

    /// It is out of use.
    pub(super) fn drained(&mut self, now: Duration, dice: f64) {
        self.drained = true;
        self.good(self.told, now, dice);
    }

    /// It is gone.
    pub(super) fn gone(&mut self) {
        self.lease = None;
    }

    /// The step failed: again after a wait that grows to a third of the life.
    pub(super) fn failed(&mut self, least: Duration, now: Duration, dice: f64) {
        self.failures = self.failures.saturating_add(1);
        let most = (self.life / 3).max(Duration::from_millis(500));
        let grown = Duration::from_millis(250).saturating_mul(1 << self.failures.min(7));
        let wait = grown.min(most).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0);
        self.due = now + wait.max(least);
    }

    fn good(&mut self, told: Option<Health>, now: Duration, dice: f64) {
        self.told = told;
        self.failures = 0;
        self.due = now + (self.life / 3).mul_f64(1.0 - dice.clamp(0.0, 1.0) / 5.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::tests::registration;
    use proptest::prelude::*;
    use std::sync::Arc;

    const LIFE: Duration = Duration::from_secs(30);
    const WELL: Wish = Wish {
        health: Health::Healthy,
        draining: false,
        gone: false,
    };

    fn lease() -> Lease {
        Lease {
            of: Arc::new(registration(80)),
            mark: String::new(),
        }
    }

    #[test]
    fn a_life_from_the_first_step_to_the_last() {
        let at = Duration::from_secs;
        let mut course = Course::new(LIFE, at(0), 0.0);
        assert_eq!(course.next(&registration(80), WELL, at(0)), Step::Register);
        course.registered(lease(), Health::Healthy, at(0), 0.0);
        assert_eq!(
            course.next(&registration(80), WELL, at(1)),
            Step::Wait(at(9))
        );
        assert_eq!(
            course.next(&registration(80), WELL, at(10)),
            Step::Renew(lease())
        );
        let ill = Wish {
            health: Health::Unhealthy,
            ..WELL
        };
        assert_eq!(
            course.next(&registration(80), ill, at(1)),
            Step::Renew(lease()),
            "at once"
        );
        course.renewed(Renewal::Kept, Health::Unhealthy, at(1), 0.0);
        assert_eq!(
            course.next(&registration(80), ill, at(1)),
            Step::Wait(at(10))
        );
        course.renewed(Renewal::Lost, Health::Unhealthy, at(2), 0.0);
        assert_eq!(course.next(&registration(80), ill, at(2)), Step::Register);
        course.registered(lease(), Health::Healthy, at(2), 0.0);
        assert_eq!(
            course.next(&registration(81), WELL, at(2)),
            Step::Replace(lease()),
            "another instance under the id"
        );
        let leaving = Wish {
            draining: true,
            ..WELL
        };
        assert_eq!(
            course.next(&registration(80), leaving, at(3)),
            Step::Drain(lease())
        );
        course.drained(at(3), 0.0);
        assert_eq!(
            course.next(&registration(80), leaving, at(4)),
            Step::Wait(at(9))
        );
        let gone = Wish { gone: true, ..WELL };
        assert_eq!(
            course.next(&registration(80), gone, at(4)),
            Step::Deregister(lease())
        );
        course.gone();
        assert_eq!(course.next(&registration(80), gone, at(4)), Step::End);
    }

    #[test]
    fn what_drains_is_not_announced() {
        let course = Course::new(LIFE, Duration::ZERO, 0.0);
        let leaving = Wish {
            draining: true,
            ..WELL
        };
        assert_eq!(
            course.next(&registration(80), leaving, Duration::ZERO),
            Step::Wait(LIFE)
        );
    }

    proptest! {
        /// Whatever fails in between: while steps succeed again, two renewals are never a life apart.
        #[test]
        fn a_renewal_is_due_well_within_a_life(dice in 0.0..1.0f64, failures in 0u32..12, life in 5u64..600) {
            let life = Duration::from_secs(life);
            let mut course = Course::new(life, Duration::ZERO, dice);
            course.registered(lease(), Health::Healthy, Duration::ZERO, dice);
            let mut now = Duration::ZERO;
            let wait = |course: &Course, now| match course.next(&registration(80), WELL, now) {
                Step::Wait(rest) => rest,
                _ => Duration::ZERO,
            };
            prop_assert!(wait(&course, now) <= life / 3);
            for _ in 0..failures {
                now += wait(&course, now);
                course.failed(Duration::ZERO, now, dice);
                prop_assert!(wait(&course, now) <= (life / 3).max(Duration::from_millis(500)));
            }
        }
    }
}
