//! Answers as tables.

use hickory_proto::rr::rdata::{A, CNAME, NS, SOA, SRV};

use super::*;

fn n(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn message(code: ResponseCode, answers: &[Record], authorities: &[Record]) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(Query::query(n("web.test."), RecordType::A));
    message.add_answers(answers.iter().cloned());
    message.add_authorities(authorities.iter().cloned());
    message
}

fn a(name: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(n(name), ttl, RData::A(A([10, 0, 0, last].into())))
}

fn alias(name: &str, ttl: u32, of: &str) -> Record {
    Record::from_rdata(n(name), ttl, RData::CNAME(CNAME(n(of))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(n("ns.test."), n("root.test."), 1, 1, 1, 1, minimum);
    Record::from_rdata(n("test."), ttl, RData::SOA(data))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn lives_and_waits() {
    for (ttl, wanted) in [
        (0, 5),
        (1, 1),
        (60, 60),
        (300, 300),
        (301, 300),
        (u32::MAX, 300),
    ] {
        assert_eq!(life(ttl), seconds(wanted), "{ttl}");
    }
    assert_eq!(refresh(seconds(100), 0.0), seconds(90));
    assert_eq!(refresh(seconds(100), 1.0), seconds(81));
    assert_eq!(refresh(seconds(100), 9.0), seconds(81));
}

#[test]
fn what_an_answer_says() {
    use ResponseCode::{NXDomain, NoError};
    let found = |last: &[u8], life| Said::Found {
        what: last
            .iter()
            .map(|last| IpAddr::from([10, 0, 0, *last]))
            .collect(),
        life: seconds(life),
    };
    let nothing = |life| Said::Nothing {
        life: seconds(life),
    };
    let loops = [
        alias("web.test.", 9, "b.test."),
        alias("b.test.", 9, "web.test."),
    ];
    let cases = [
        (
            message(
                NoError,
                &[a("WEB.test.", 30, 1), a("web.test.", 20, 2)],
                &[],
            ),
            found(&[1, 2], 20),
        ),
        (
            message(NoError, &[a("other.test.", 30, 1)], &[]),
            nothing(5),
        ),
        (
            message(
                NoError,
                &[alias("web.test.", 7, "b.test."), a("b.test.", 30, 1)],
                &[],
            ),
            found(&[1], 7),
        ),
        (
            message(NoError, &[alias("web.test.", 7, "b.test.")], &[]),
            Said::Alias {
                name: n("b.test."),
                life: seconds(7),
            },
        ),
        (
            message(
                NoError,
                &[alias("web.test.", 70, "b.test.")],
                &[soa(60, 40)],
            ),
            nothing(40),
        ),
        (
            message(NXDomain, &[alias("web.test.", 70, "b.test.")], &[]),
            nothing(5),
        ),
        (message(NoError, &[], &[]), nothing(5)),
        (message(NoError, &[], &[soa(60, 3600)]), nothing(60)),
        (message(NXDomain, &[], &[soa(3600, 3600)]), nothing(300)),
        (message(NXDomain, &[], &[soa(3600, 0)]), nothing(5)),
    ];
    for (at, (message, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(addresses(&message, &n("web.test.")), wanted, "case {at}");
    }
    let looping = addresses(&message(NoError, &loops, &[]), &n("web.test."));
    assert!(!matches!(looping, Said::Found { .. }));
}

#[test]
fn targets_and_the_root() {
    let srv = |port, host: &str| {
        Record::from_rdata(n("web.test."), 9, RData::SRV(SRV::new(1, 2, port, n(host))))
    };
    let said = |answers: &[Record]| {
        targets(
            &message(ResponseCode::NoError, answers, &[]),
            &n("web.test."),
        )
    };
    assert_eq!(said(&[srv(0, ".")]), Said::Nothing { life: seconds(9) });
    let Said::Found { what, .. } = said(&[srv(80, "."), srv(81, "b.test.")]) else {
        panic!("one target")
    };
    assert_eq!(what.len(), 1);
    assert_eq!((what[0].port, &what[0].host), (81, &n("b.test.")));
}

#[test]
fn only_a_whole_answer_of_ours_counts() {
    let check = |message: &Message| {
        answer(
            &message.to_vec().unwrap(),
            7,
            &n("web.test."),
            RecordType::A,
        )
        .map(|_| ())
    };
    let good = message(ResponseCode::NoError, &[a("web.test.", 9, 1)], &[]);
    assert_eq!(check(&good), Ok(()));
    let with = |change: &dyn Fn(&mut Message)| {
        let mut changed = good.clone();
        change(&mut changed);
        check(&changed)
    };
    assert_eq!(with(&|m| m.metadata.id = 8), Err(AnswerError::Foreign));
    assert_eq!(
        with(&|m| m.metadata.message_type = MessageType::Query),
        Err(AnswerError::Foreign)
    );
    assert_eq!(with(&|m| m.queries.clear()), Err(AnswerError::Foreign));
    assert_eq!(
        with(&|m| m.queries[0].name = n("x.test.")),
        Err(AnswerError::Foreign)
    );
    assert_eq!(
        with(&|m| m.queries[0].query_type = RecordType::SRV),
        Err(AnswerError::Foreign)
    );
    assert_eq!(
        with(&|m| m.metadata.truncation = true),
        Err(AnswerError::Cut)
    );
    let refused = |m: &mut Message| m.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(
        with(&refused),
        Err(AnswerError::Refused(ResponseCode::ServFail))
    );
    let server = Record::from_rdata(n("test."), 9, RData::NS(NS(n("ns.test."))));
    let referral = message(ResponseCode::NoError, &[], std::slice::from_ref(&server));
    assert_eq!(check(&referral), Err(AnswerError::Referral));
    let negative = message(ResponseCode::NoError, &[], &[server, soa(1, 1)]);
    assert_eq!(check(&negative), Ok(()));
}

#[test]
fn no_bytes_panic() {
    let whole = message(
        ResponseCode::NoError,
        &[a("web.test.", 9, 1), alias("b.", 1, "c.")],
        &[soa(1, 1)],
    );
    let bytes = whole.to_vec().unwrap();
    for end in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[end] ^= 0xff;
        for text in [&bytes[..end], &bent[..]] {
            if let Ok(read) = answer(text, 7, &n("web.test."), RecordType::A) {
                let _any = (
                    addresses(&read, &n("web.test.")),
                    targets(&read, &n("web.test.")),
                    additionals(&read),
                );
            }
        }
    }
}

/// Priorities and weights.
type Wanted<'w> = &'w [(u16, u32)];

#[test]
fn weights_and_priorities() {
    let place = |priority, weight, ips: &[&str]| Place {
        priority,
        weight,
        port: 80,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let cases: [(&[Place], Wanted<'_>); 4] = [
        (
            &[place(1, 0, &["10.0.0.1"]), place(2, 0, &["10.0.0.2"])],
            &[(1, 1), (2, 1)],
        ),
        (
            &[place(1, 0, &["10.0.0.1"]), place(1, 9, &["10.0.0.2"])],
            &[(1, 1), (1, 9)],
        ),
        (
            &[
                place(1, 1, &["10.0.0.1"]),
                place(1, 1, &["10.0.0.2", "fd00::2"]),
            ],
            &[(1, 12), (1, 6), (1, 6)],
        ),
        (
            &[
                place(3, 5, &["10.0.0.1", "0.0.0.0"]),
                place(1, 7, &["::ffff:10.0.0.1"]),
            ],
            &[(1, 84)],
        ),
    ];
    for (places, wanted) in cases {
        let found: Vec<_> = endpoints(places)
            .iter()
            .map(|one| (one.priority, one.weight))
            .collect();
        assert_eq!(found, wanted, "{places:?}");
    }
    assert!(endpoints(&[place(0, 1, &[])]).is_empty());
}
