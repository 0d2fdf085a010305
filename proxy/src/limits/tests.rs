//! Which limits count what, together and apart.

use std::borrow::Cow;

use mesh_model::{
    principal::SpiffeId,
    snapshot::{RequestMatch, rule::PathMatch},
};

use super::*;

struct Asks<'a> {
    path: &'a str,
    user: Option<&'a str>,
    caller: Option<&'a SpiffeId>,
}

impl RequestView for Asks<'_> {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn path(&self) -> &str {
        self.path
    }
    fn query(&self) -> &'static str {
        ""
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let found = self.user.filter(|_| name == "x-user");
        found.map(|user| user.as_bytes().into())
    }
    fn source(&self) -> Source<'_> {
        Source {
            identity: self.caller,
            ..Source::default()
        }
    }
}

const NOBODY: Asks<'static> = Asks {
    path: "/",
    user: None,
    caller: None,
};

fn limit(key: u64, burst: u32, by: &[LimitBy]) -> RateLimit {
    RateLimit {
        key: LimitKey(key),
        name: format!("shop/limit-{key}").into(),
        matches: Vec::new(),
        by: Arc::from(by),
        requests: 1,
        per: Duration::from_hours(1),
        burst,
        scope: LimitScope::Host,
        fields: LimitFields::None,
    }
}

fn limits() -> Limits {
    Limits::new(Arc::default())
}

/// How many of many requests get through.
fn through(limits: &Limits, all: &[RateLimit], request: &Asks<'_>) -> usize {
    (0..50)
        .filter(|_| limits.request(all, request).is_ok())
        .count()
}

#[test]
fn each_key_has_its_own() {
    let (cart, web): (SpiffeId, SpiffeId) = (
        "spiffe://m/ns/shop/sa/cart".parse().unwrap(),
        "spiffe://m/ns/shop/sa/web".parse().unwrap(),
    );
    let of = |caller, user| Asks {
        caller: Some(caller),
        user,
        ..NOBODY
    };
    let limits = limits();
    let by_source = [limit(1, 3, &[LimitBy::Source])];
    assert_eq!(through(&limits, &by_source, &of(&cart, None)), 3);
    assert_eq!(through(&limits, &by_source, &of(&web, None)), 3);
    assert_eq!(through(&limits, &by_source, &NOBODY), 3);
    let by_namespace = [limit(2, 3, &[LimitBy::SourceNamespace])];
    assert_eq!(through(&limits, &by_namespace, &of(&cart, None)), 3);
    assert_eq!(through(&limits, &by_namespace, &of(&web, None)), 0);
    let by_both = [limit(
        3,
        3,
        &[LimitBy::Header("x-user".into()), LimitBy::Source],
    )];
    assert_eq!(through(&limits, &by_both, &of(&web, Some("ann"))), 3);
    assert_eq!(through(&limits, &by_both, &of(&web, Some("bob"))), 3);
    assert_eq!(through(&limits, &by_both, &of(&cart, Some("ann"))), 3);
    assert_eq!(through(&limits, &by_both, &of(&cart, Some(""))), 3);
    assert_eq!(through(&limits, &by_both, &of(&cart, None)), 3);
    assert_eq!(through(&limits, &by_both, &of(&cart, Some("ann"))), 0);
}

#[test]
fn what_one_limit_refuses_counts_for_none() {
    let limits = limits();
    let api = RateLimit {
        matches: vec![RequestMatch {
            path: PathMatch::Prefix("/api".into()),
            ..RequestMatch::default()
        }],
        ..limit(2, 2, &[])
    };
    let all = [limit(1, 5, &[]), api];
    let on_api = Asks {
        path: "/api/x",
        ..NOBODY
    };
    assert_eq!(through(&limits, &all, &on_api), 2);
    assert_eq!(through(&limits, &all, &NOBODY), 3);
    let refused = limits.request(&all, &NOBODY).unwrap_err();
    assert!(refused.what.contains("shop/limit-1"), "{refused:?}");
    assert!(refused.after <= Duration::from_hours(1));
}

#[test]
fn workers_share_one_state() {
    let shared = Arc::<Shared>::default();
    let (one, two) = (
        Limits::new(Arc::clone(&shared)),
        Limits::new(Arc::clone(&shared)),
    );
    let all = [limit(1, 10, &[])];
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += usize::from(one.request(&all, &NOBODY).is_ok());
        admitted += usize::from(two.request(&all, &NOBODY).is_ok());
    }
    assert_eq!(admitted, 10);
    // A new snapshot without the limit lets its state go, once no worker holds it.
    one.retire(&Snapshot::default());
    assert_eq!(lock(&shared.lives).len(), 1);
    two.retire(&Snapshot::default());
    assert!(lock(&shared.lives).is_empty());
}

#[test]
fn shares_of_the_mesh() {
    let shared = Arc::<Shared>::default();
    let limits = Limits::new(Arc::clone(&shared));
    let mesh = |key| RateLimit {
        scope: LimitScope::Mesh,
        ..limit(key, 40, &[])
    };
    assert_eq!(through(&limits, &[mesh(1)], &NOBODY), 40);
    // Told before the limit is met, and after.
    shared.set_share(LimitKey(2), 0.25);
    assert_eq!(through(&limits, &[mesh(2)], &NOBODY), 10);
    assert!(limits.request(&[mesh(3)], &NOBODY).is_ok());
    shared.set_share(LimitKey(3), 0.0);
    assert_eq!(through(&limits, &[mesh(3)], &NOBODY), 0);
    shared.set_share(LimitKey(3), f32::NAN);
    assert_eq!(through(&limits, &[mesh(3)], &NOBODY), 0);
    assert_eq!(through(&limits, &[limit(9, 1, &[])], &NOBODY), 1);
    assert_eq!(
        shared.usage(),
        [(LimitKey(1), 50), (LimitKey(2), 50), (LimitKey(3), 101)]
    );
    shared.forget_share(LimitKey(2));
    shared.forget_share(LimitKey(3));
    assert!(lock(&shared.shares).is_empty());
}

#[test]
fn connections_count_where_no_request_is_asked_for() {
    let limits = limits();
    let by_header = limit(2, 1, &[LimitBy::Header("x".into())]);
    let by_path = RateLimit {
        matches: vec![RequestMatch::default()],
        ..limit(3, 1, &[])
    };
    let all = [limit(1, 4, &[LimitBy::SourceAddress]), by_header, by_path];
    let from = |address: &str| Source {
        address: Some(address.parse().unwrap()),
        ..Source::default()
    };
    let through = |address| {
        let count = || limits.connection(&all, from(address)).is_ok();
        (0..20).filter(|_| count()).count()
    };
    assert_eq!(through("10.0.0.1"), 4);
    assert_eq!(through("::ffff:10.0.0.1"), 0);
    assert_eq!(through("10.0.0.2"), 4);
}
