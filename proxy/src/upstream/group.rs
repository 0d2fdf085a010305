//! A backend as one worker uses it: picks an endpoint by the policy, with what this worker knows of each.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mesh_model::snapshot::{EndpointKey, TrafficPolicy, traffic::Balance};
use smallvec::SmallVec;

use super::{
    budget::Budget,
    health::Health,
    roster::{
        Roster, Slot,
        lots::{Class, Lots, Now},
    },
    shared::BackendState,
};
use crate::balance::{
    Lot,
    choice::{self, Fit},
    latency::{Cost, PeakEwma, Usual},
    mix,
    robin::Robin,
    warmth,
};

/// What a request asks of the pick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'w> {
    /// Endpoints that were tried: none of them while another is left.
    pub(crate) tried: &'w [EndpointKey],
    /// Number of the request's hash key, for consistent hashing.
    pub(crate) hash: Option<u64>,
    /// The endpoint that holds the caller's session: it wins while it is usable and was not tried.
    pub(crate) held: Option<EndpointKey>,
}

/// One endpoint as this worker knows it.
#[derive(Debug)]
pub(crate) struct Live {
    /// What all workers know.
    pub(crate) health: Arc<Health>,
    /// Its latency.
    pub(crate) latency: PeakEwma,
    outstanding: Cell<u32>,
}

impl Live {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        Self {
            health,
            latency: PeakEwma::default(),
            outstanding: Cell::new(0),
        }
    }
    pub(crate) fn begin(&self) {
        self.outstanding
            .set(self.outstanding.get().saturating_add(1));
    }
    pub(crate) fn end(&self) {
        self.outstanding
            .set(self.outstanding.get().saturating_sub(1));
    }
    pub(crate) fn load(&self) -> u32 {
        self.outstanding.get()
    }
}

/// Time after which a latency counts for 1/e where the policy does not say.
const DECAY: Duration = Duration::from_secs(10);
/// Slots that consistent hashing looks at beyond a key's own.
const WALK: usize = 256;

/// A backend as one worker uses it.
#[derive(Debug)]
pub(crate) struct Group {
    /// What all workers share.
    pub(crate) state: Arc<BackendState>,
    /// This worker's hand on the retry budget.
    pub(crate) budget: Budget,
    /// What is usual here.
    pub(crate) usual: Usual,
    roster: Arc<Roster>,
    lots: RefCell<Arc<Lots>>,
    lives: RefCell<Vec<Option<Rc<Live>>>>,
    /// By area; made for these lots.
    robins: RefCell<(Arc<Lots>, Vec<Robin>)>,
    decay_us: u64,
}

impl Group {
    /// `before`: what this worker had of the same backend.
    pub(crate) fn new(
        roster: Arc<Roster>,
        state: Arc<BackendState>,
        before: Option<&Self>,
        now: &Now,
    ) -> Self {
        let policy = roster.policy();
        let decay = match policy.balance {
            Balance::PeakEwma { decay } if !decay.is_zero() => decay,
            _ => DECAY,
        };
        let lots = roster.lots(now);
        Self {
            budget: Budget::new(Arc::clone(state.bucket()), policy.retry_budget),
            usual: before
                .map(|before| before.usual.clone())
                .unwrap_or_default(),
            lives: RefCell::new(vec![None; roster.slots().len()]),
            robins: RefCell::default(),
            lots: RefCell::new(lots),
            decay_us: u64::try_from(decay.as_micros()).unwrap_or(u64::MAX),
            roster,
            state,
        }
    }

    /// The endpoints.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// How they are used.
    pub(crate) fn policy(&self) -> &TrafficPolicy {
        self.roster.policy()
    }

    /// Time after which a latency counts for 1/e, in microseconds.
    pub(crate) fn decay_us(&self) -> u64 {
        self.decay_us
    }

    /// True when an endpoint is in.
    pub(crate) fn is_usable(&self, now: &Now) -> bool {
        self.refresh(now);
        let lots = self.lots.borrow();
        lots.whole() > 0
            && (lots.class() != Class::Any
                || lots.panics() && self.roster.slots().iter().any(|s| !s.health.is_out()))
    }

    /// What this worker knows of a slot; `make` finds it the first time.
    pub(crate) fn live(&self, slot: u32, make: impl FnOnce(&Slot) -> Rc<Live>) -> Option<Rc<Live>> {
        let mut lives = self.lives.borrow_mut();
        let live = lives.get_mut(slot as usize)?;
        if live.is_none() {
            *live = Some(make(self.roster.slot(slot)?));
        }
        live.clone()
    }

    /// Picks a slot. `None`: nobody is there. `make` finds what this worker knows of an endpoint.
    pub(crate) fn pick(
        &self,
        wish: &Wish<'_>,
        now: &Now,
        make: impl Fn(&Slot) -> Rc<Live>,
    ) -> Option<u32> {
        self.refresh(now);
        let lots = self.lots.borrow();
        let pick = Pick {
            group: self,
            lots: &lots,
            wish,
            now,
            watchful: !lots.is_of(now),
            make: &make,
        };
        pick.held()
            .or_else(|| pick.hashed())
            .or_else(|| pick.balanced())
            .or_else(|| pick.searched())
    }

    /// Takes over what changed of anybody's health.
    fn refresh(&self, now: &Now) {
        if !self.lots.borrow().is_of(now) {
            self.lots.replace(self.roster.lots(now));
        }
    }
}

/// One pick.
struct Pick<'p, M> {
    group: &'p Group,
    lots: &'p Arc<Lots>,
    wish: &'p Wish<'p>,
    now: &'p Now,
    /// The lots may be out of date: health is looked at.
    watchful: bool,
    make: &'p M,
}

impl<M: Fn(&Slot) -> Rc<Live>> Pick<'_, M> {
    /// The endpoint that holds the session.
    fn held(&self) -> Option<u32> {
        let slot = self.group.roster.find(self.wish.held?)?;
        let one = self.group.roster.slot(slot)?;
        (self.lots.class().holds(one) && self.is_fresh(one)).then_some(slot)
    }

    /// The endpoint of the request's key.
    fn hashed(&self) -> Option<u32> {
        let hash = self.wish.hash?;
        let whole = self.lots.whole();
        let by_hash = matches!(
            self.group.policy().balance,
            Balance::RingHash { .. } | Balance::Maglev { .. }
        );
        if !by_hash || whole == 0 {
            return None;
        }
        // Other bits than those that find the place in the table.
        let point = u32::try_from(mix(!hash) % u64::from(whole)).ok()?;
        let (area, lot) = self.lots.area(point)?;
        let Some(table) = self.group.roster.table(area) else {
            // The first table of a large backend is being made.
            let index = usize::try_from(hash % lot.len() as u64).ok()?;
            return lot.at(index).filter(|slot| self.fit(*slot) != Fit::No);
        };
        let class = self.lots.class();
        table.walk(hash).take(WALK).find(|slot| {
            let slot = self.group.roster.slot(*slot);
            slot.is_some_and(|slot| class.holds(slot) && self.is_fresh(slot))
        })
    }

    /// By the policy's algorithm, in a level drawn by its share.
    fn balanced(&self) -> Option<u32> {
        let whole = self.lots.whole();
        let point = match self.lots.area(0)? {
            _ if whole == 0 => return None,
            _ => fastrand::u32(0..whole),
        };
        let (area, lot) = self.lots.area(point)?;
        let draw = &mut |below: u64| fastrand::u64(0..below.max(1));
        let fit = |slot| self.fit(slot);
        match self.group.policy().balance {
            Balance::PeakEwma { .. } => {
                let (mean, usual) = (lot.mean(), self.group.usual.get());
                let cost = |slot| self.cost(slot, mean);
                let better = |a, b| cost(a).is_less_than(cost(b), usual);
                choice::best(lot, 2, fit, better, draw)
            }
            Balance::LeastRequest { choices } => {
                let better = |a, b| self.load(a, 1.0) < self.load(b, 1.0);
                choice::best(lot, choices.max(2), fit, better, draw)
            }
            Balance::RoundRobin => self.robin(area, lot, draw),
            Balance::Random | Balance::RingHash { .. } | Balance::Maglev { .. } => {
                choice::best(lot, 1, fit, |_, _| false, draw)
            }
        }
    }

    fn robin(&self, area: usize, lot: &Lot, draw: &mut impl FnMut(u64) -> u64) -> Option<u32> {
        let weight = |slot| self.group.roster.weight(slot);
        let mut robins = self.group.robins.borrow_mut();
        let (of, robins) = &mut *robins;
        if !Arc::ptr_eq(of, self.lots) {
            *of = Arc::clone(self.lots);
            robins.clear();
        }
        if robins.len() <= area {
            robins.resize_with(area + 1, Robin::default);
        }
        let robin = robins.get_mut(area)?;
        if !robin.is_for(lot) {
            *robin = Robin::new(lot, weight, draw);
        }
        robin.pick(lot, weight, |slot| self.fit(slot))
    }

    /// Looks at everybody: whoever is best of what is left, a tried one last.
    fn searched(&self) -> Option<u32> {
        let is_in = |slot: &Slot| !slot.health.is_out();
        self.search(|slot| is_in(slot) && slot.endpoint.preferred && self.is_fresh(slot))
            .or_else(|| self.search(|slot| is_in(slot) && self.is_fresh(slot)))
            .or_else(|| self.search(|slot| slot.endpoint.preferred && self.is_fresh(slot)))
            .or_else(|| self.search(|slot| self.is_fresh(slot)))
            .or_else(|| self.search(|slot| is_in(slot) && slot.endpoint.preferred))
            .or_else(|| self.search(is_in))
            .or_else(|| self.search(|_| true))
    }

    fn search(&self, may: impl Fn(&Slot) -> bool) -> Option<u32> {
        let roster = &self.group.roster;
        let draw = &mut |below: u64| fastrand::u64(0..below.max(1));
        roster.areas().iter().find_map(|area| {
            let inside = area.slots.clone();
            let slots: SmallVec<[u32; 32]> = inside
                .filter(|slot| roster.slot(*slot).is_some_and(&may))
                .collect();
            let lot = Lot::new(slots.to_vec(), |slot| roster.weight(slot));
            let better = |a, b| self.load(a, 1.0) < self.load(b, 1.0);
            choice::best(&lot, 2, |_| Fit::Yes, better, draw)
        })
    }

    fn is_fresh(&self, slot: &Slot) -> bool {
        !self.wish.tried.contains(&slot.endpoint.key)
    }

    fn fit(&self, slot: u32) -> Fit {
        let start = self.group.policy().slow_start.as_ref();
        if self.wish.tried.is_empty() && !self.watchful && start.is_none() {
            return Fit::Yes;
        }
        let Some(one) = self.group.roster.slot(slot) else {
            return Fit::No;
        };
        if !self.is_fresh(one) || (self.watchful && !self.lots.class().holds(one)) {
            return Fit::No;
        }
        let Some(start) = start else { return Fit::Yes };
        let age = self.now.us.saturating_sub(one.health.since_us());
        let part = warmth::part(start, Duration::from_micros(age));
        if part < 1.0 && fastrand::f64() >= part {
            Fit::Cold
        } else {
            Fit::Yes
        }
    }

    /// What a slot has to do over its weight relative to `mean`.
    fn load(&self, slot: u32, mean: f64) -> f64 {
        let load = self.live(slot).map_or(0, |live| live.load());
        f64::from(load) * mean / f64::from(self.group.roster.weight(slot))
    }

    fn cost(&self, slot: u32, mean: f64) -> Cost {
        let live = self.live(slot);
        let load = live.as_ref().map_or(0, |live| live.load());
        Cost {
            latency: live.and_then(|live| live.latency.read(self.now.us, self.group.decay_us)),
            load: f64::from(load) * mean / f64::from(self.group.roster.weight(slot)),
        }
    }

    fn live(&self, slot: u32) -> Option<Rc<Live>> {
        self.group.live(slot, self.make)
    }
}

#[cfg(test)]
mod tests;
