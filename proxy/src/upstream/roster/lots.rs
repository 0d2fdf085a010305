//! Who of a backend may be picked now, and with which share: recomputed when somebody's health changes.

use smallvec::SmallVec;

use super::{Area, Roster, Slot};
use crate::balance::{
    Lot,
    level::{self, Capacity, WHOLE},
};

/// The moment of a pick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Microseconds of the workers' clock.
    pub(crate) us: u64,
    /// Changes of anybody's health so far.
    pub(crate) changes: u64,
    /// True when nobody at all is out.
    pub(crate) all_in: bool,
}

/// Large backends are looked through at most this often; in between what is picked is looked at.
const PAUSE_US: u64 = 5_000;
/// Endpoints of a backend that is large.
const LARGE: usize = 512;

/// Whom the best choice is among.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// Preferred ones that are in.
    #[default]
    Good,
    /// Only those of hosts that are down are in.
    Rest,
    /// All of them: none is in, or too few are.
    Any,
}

impl Class {
    /// Whether an endpoint belongs to it.
    pub(crate) fn holds(self, slot: &Slot) -> bool {
        match self {
            Self::Good => slot.endpoint.preferred && !slot.health.is_out(),
            Self::Rest => !slot.health.is_out(),
            Self::Any => true,
        }
    }
}

/// The lots of a backend.
#[derive(Debug, Default)]
pub(crate) struct Lots {
    /// The change of health that it knows of; `None`: made of nothing.
    changes: Option<u64>,
    made_us: u64,
    class: Class,
    /// True when too few are in, so that all are used.
    panics: bool,
    /// By area.
    by_area: Vec<Lot>,
    /// Sums of the areas' shares, with their indexes; areas without a share are left out.
    shares: SmallVec<[(u32, usize); 4]>,
}

impl Lots {
    /// Looks at every endpoint.
    pub(crate) fn new(roster: &Roster, now: &Now) -> Self {
        let policy = roster.policy();
        let good = |slot: &Slot| slot.endpoint.preferred && (now.all_in || !slot.health.is_out());
        let slots = roster.slots();
        let count = slots.iter().filter(|slot| good(slot)).count();
        let mut class = if count > 0 {
            Class::Good
        } else if slots.iter().any(|slot| Class::Rest.holds(slot)) {
            Class::Rest
        } else {
            Class::Any
        };
        let mut lots = members(roster, |slot| match class {
            Class::Good => good(slot),
            other => other.holds(slot),
        });
        let few = count * 100 < slots.len() * usize::from(policy.panic_threshold.min(100));
        let mut capacities = capacities(roster, &lots, class);
        let panics = few && (is_single(roster.areas()) || !level::suffice(&capacities));
        if panics {
            class = Class::Any;
            lots = members(roster, |_| true);
            capacities = self::capacities(roster, &lots, class);
        }
        let shares = shares(roster.areas(), &lots, &capacities);
        Self {
            changes: Some(now.changes),
            made_us: now.us,
            class,
            panics,
            by_area: lots,
            shares,
        }
    }

    /// True when it should be made anew: somebody's health has changed, and a large backend was not just looked at.
    pub(crate) fn is_stale(&self, roster: &Roster, now: &Now) -> bool {
        let large = roster.slots().len() > LARGE;
        match self.changes {
            None => true,
            Some(changes) if changes == now.changes => false,
            Some(_) => !large || now.us.saturating_sub(self.made_us) >= PAUSE_US,
        }
    }

    /// True when it knows of every change.
    pub(crate) fn is_of(&self, now: &Now) -> bool {
        self.changes == Some(now.changes)
    }

    /// Whom it is among.
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// True when so few are in that all are used.
    pub(crate) fn panics(&self) -> bool {
        self.panics
    }

    /// Sum of the shares; 0: nobody is there at all.
    pub(crate) fn whole(&self) -> u32 {
        self.shares.last().map_or(0, |(sum, _)| *sum)
    }

    /// The area at a point below the whole.
    pub(crate) fn area(&self, point: u32) -> Option<(usize, &Lot)> {
        let (_, area) = self.shares.iter().find(|(sum, _)| point < *sum)?;
        Some((*area, self.by_area.get(*area)?))
    }
}

/// Those of each area for which `may` holds.
fn members(roster: &Roster, may: impl Fn(&Slot) -> bool) -> Vec<Lot> {
    let lot = |area: &Area| {
        let inside = area.slots.clone();
        let slots = inside.filter(|slot| roster.slot(*slot).is_some_and(&may));
        Lot::new(slots.collect(), |slot| roster.weight(slot))
    };
    roster.areas().iter().map(lot).collect()
}

fn is_single(areas: &[Area]) -> bool {
    areas.last().is_none_or(|area| area.level == 0)
}

/// What each area has, and what of it is usable. Endpoints of hosts that are down count as not usable while
/// others are.
fn capacities(roster: &Roster, lots: &[Lot], class: Class) -> Vec<Capacity> {
    let weigh = |slots: &mut dyn Iterator<Item = u32>| -> u64 {
        slots.map(|slot| u64::from(roster.weight(slot))).sum()
    };
    let capacity = |(area, lot): (&Area, &Lot)| {
        let usable = weigh(&mut (0..lot.len()).filter_map(|index| lot.at(index)));
        let total = match class {
            Class::Good => weigh(&mut area.slots.clone()),
            Class::Rest | Class::Any => usable,
        };
        Capacity { total, usable }
    };
    roster.areas().iter().zip(lots).map(capacity).collect()
}

/// Shares of the levels, and in each of its areas, as running sums.
fn shares(areas: &[Area], lots: &[Lot], capacities: &[Capacity]) -> SmallVec<[(u32, usize); 4]> {
    let mut levels: SmallVec<[Capacity; 8]> = SmallVec::new();
    for (area, capacity) in areas.iter().zip(capacities) {
        if area.level >= levels.len() {
            levels.push(Capacity::default());
        }
        if let Some(level) = levels.last_mut() {
            level.total += capacity.total;
            level.usable += capacity.usable;
        }
    }
    let shares = level::shares(&levels);
    let wish = |area: &Area, capacity: &Capacity| {
        u64::from(area.share) * u64::from(capacity.availability())
    };
    let mut all = SmallVec::new();
    let mut sum = 0;
    for (level, share) in shares.iter().enumerate() {
        let of_level = || {
            let both = areas.iter().zip(capacities).enumerate();
            both.filter(|(_, (area, _))| area.level == level)
        };
        let wishes: u64 = of_level()
            .map(|(_, (area, capacity))| wish(area, capacity))
            .sum();
        for (index, (area, capacity)) in of_level() {
            let part = u64::from(*share) * wish(area, capacity);
            // Rounded up, so that nobody who is to get something gets nothing.
            let part = part.div_ceil(wishes.max(1));
            if part > 0 && lots.get(index).is_some_and(|lot| lot.len() > 0) {
                sum += u32::try_from(part).unwrap_or(WHOLE);
                all.push((sum, index));
            }
        }
    }
    all
}
