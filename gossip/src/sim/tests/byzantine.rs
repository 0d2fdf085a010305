//! A stolen host key: it can lie about its own workloads and nothing else.

use mesh_model::{
    catalog::{Catalog, ResourceKey},
    commit::{Commit, CommitId, Op},
    fact::HostHead,
    grant::{OperatorGrant, Signed, domain},
    name::HostId,
};

use super::*;
use crate::{
    Frame, Grant, HostUpdate, Input, root_of,
    wire::{Delta, Have, SetKind, SetState, Summary, Want},
};

fn head_of(world: &World, of: usize, seq: u64, records: &[Record]) -> HostHead {
    HostHead {
        mesh_id: world.mesh().0.to_vec(),
        host_id: world.machines[of].host.0.to_vec(),
        incarnation: 900,
        seq,
        root: root_of(records).to_vec(),
        commits: vec![0; 16],
        signed_ms: world.wall_ms(0),
        lease_until_ms: u64::MAX,
        ..HostHead::default()
    }
}

fn update(head: Signed, records: Vec<Record>) -> Vec<u8> {
    HostUpdate {
        head: Some(head),
        full: true,
        upserts: records,
        ..HostUpdate::default()
    }
    .encode_to_vec()
}

/// What everybody must go on seeing of the honest hosts and of the operators' resources.
fn honest(world: &mut World, at: usize, thief: HostId) -> Catalog {
    let mut catalog = (*world.machines[at].node.as_mut().unwrap().catalog()).clone();
    catalog.hosts.remove(&thief);
    catalog.version = 0;
    catalog
}

fn forged_commit(world: &World, grant: &Signed, signer: usize) -> Vec<u8> {
    let mut draft =
        Draft::new(&world.keys, 0, world.wall_ms(0), 666).put(&shop("web"), &[], "evil");
    draft.commit.author_grant = grant.encode_to_vec();
    let payload = draft.commit.encode_to_vec();
    world
        .keys
        .host(signer)
        .sign(domain::COMMIT, payload)
        .encode_to_vec()
}

fn attacks(world: &World, thief: usize) -> Vec<Frame> {
    let key = world.keys.host(thief);
    let lie = vec![workload("web", "evil")];
    let victim_head = head_of(world, 1, 5, &lie).encode_to_vec();
    let self_made = OperatorGrant {
        mesh_id: world.mesh().0.to_vec(),
        name: "thief".to_owned(),
        key: key.public.to_vec(),
        namespaces: vec!["*".to_owned()],
        not_before_ms: 0,
        not_after_ms: u64::MAX,
    };
    let self_made = key.sign(domain::OPERATOR, self_made.encode_to_vec());
    let real = world.keys.operator_grant(0);
    let mut foreign_authority = world.keys.authority_grant(thief, &key, 9).signed().clone();
    foreign_authority.signature = key
        .sign(domain::AUTHORITY, foreign_authority.payload.clone())
        .signature;
    let greedy = key.sign(
        domain::HOST,
        mesh_model::grant::HostGrant {
            mesh_id: world.mesh().0.to_vec(),
            host_id: world.machines[thief].host.0.to_vec(),
            ed25519: key.public.to_vec(),
            may_register: vec!["*".to_owned()],
            not_after_ms: u64::MAX,
            grant_seq: 99,
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let mut own_wrong_root = head_of(world, thief, 7, &lie);
    own_wrong_root.root = vec![1; 32];
    let many: Vec<Record> = (0..2000).map(|n| workload(&format!("s{n}"), "x")).collect();
    let own_too_many = head_of(world, thief, 8, &many);
    vec![
        Frame::Delta(Delta {
            hosts: vec![
                update(key.sign(domain::HEAD, victim_head.clone()), lie.clone()),
                update(
                    Signed {
                        signer: world.keys.host(1).public.to_vec(),
                        ..key.sign(domain::HEAD, victim_head)
                    },
                    lie.clone(),
                ),
                update(
                    key.sign(domain::HEAD, own_wrong_root.encode_to_vec()),
                    lie.clone(),
                ),
                update(key.sign(domain::HEAD, own_too_many.encode_to_vec()), many),
            ],
            commits: vec![
                forged_commit(world, &self_made, thief),
                forged_commit(world, &real, thief),
                Commit::default().encode_to_vec(),
                vec![0xff; 64],
            ],
            grants: vec![
                Grant::Operator(self_made).encode(),
                Grant::Authority(foreign_authority).encode(),
                Grant::Host(greedy).encode(),
                Grant::Genesis(key.sign(domain::GENESIS, vec![1, 2, 3])).encode(),
                vec![1, 2, 3],
            ],
        }),
        Frame::Have(Have {
            kind: SetKind::Commits.into(),
            covered: vec![],
            items: vec![7; 3200],
        }),
        Frame::Have(Have {
            kind: SetKind::Hosts.into(),
            covered: vec![1; 3],
            items: vec![7; 35],
        }),
        Frame::Want(Want {
            kind: SetKind::Hosts.into(),
            keys: vec![9; 1600],
        }),
        Frame::Want(Want {
            kind: 77,
            keys: vec![9; 16],
        }),
        Frame::Summary(Summary {
            sets: vec![SetState::default(); 50],
        }),
        Frame::Swim(vec![1; 400].into()),
        Frame::Unknown(1234),
    ]
}

#[test]
fn a_stolen_host_key_changes_nothing_of_others() {
    for_seeds(8, |seed| {
        let mut world = mesh(seed, 4);
        let thief = 3;
        let stolen = world.machines[thief].host;
        world.publish(1, vec![host_record("m1"), workload("web", "good")]);
        let ticket = edit(&mut world, 0, "api", "good", 1);
        // Its real grant covers one service only.
        let narrow = world.keys.host_grant(thief, &["shop/mine"], 2);
        world.grant(0, vec![narrow]);
        world.run(secs(3));
        assert!(world.answers[&ticket].is_ok());
        let before: Vec<Catalog> = (0..3).map(|at| honest(&mut world, at, stolen)).collect();
        for round in 0..20 {
            let frames = attacks(&world, thief);
            for at in 0..3 {
                for frame in &frames {
                    let bytes = frame.encode();
                    world.input(
                        at,
                        Input::Frame {
                            from: stolen,
                            bytes: bytes.clone(),
                        },
                    );
                    world.input(
                        at,
                        Input::Datagram {
                            from: stolen,
                            bytes,
                        },
                    );
                }
            }
            world.run(Duration::from_millis(100 + round));
        }
        // It may speak for itself: what its grant does not cover is left out.
        let records = vec![
            host_record("m3"),
            workload("web", "evil"),
            workload("mine", "ok"),
        ];
        world.publish(thief, records);
        world.run(secs(5));
        for (at, before) in before.iter().enumerate() {
            let after = honest(&mut world, at, stolen);
            assert_eq!(after.resources, before.resources);
            assert_eq!(after.operators, before.operators);
            assert_eq!(after.authorities, before.authorities);
            assert_eq!(
                (after.commits, after.commit_count),
                (before.commits, before.commit_count)
            );
            for (host, facts) in &before.hosts {
                assert_eq!(after.hosts[host].workloads, facts.workloads);
                assert_eq!(after.hosts[host].grant, facts.grant);
            }
            let node = world.machines[at].node.as_mut().unwrap();
            let facts = node.catalog().hosts[&stolen].clone();
            assert_eq!(
                facts.workloads.keys().collect::<Vec<_>>(),
                ["workload/shop/mine"]
            );
            assert!(
                node.findings()
                    .iter()
                    .any(|finding| finding.code == "service-not-granted")
            );
        }
    });
}

#[test]
fn two_keepers_of_one_key_are_told_apart_and_shown() {
    let mut world = mesh(3, 3);
    let stolen = world.machines[2].host;
    world.machines[2].cloned = true;
    let key = world.keys.host(2);
    let (one, two) = (vec![workload("web", "1")], vec![workload("web", "2")]);
    for (at, records) in [(0, one), (1, two)] {
        let head = key.sign(
            domain::HEAD,
            head_of(&world, 2, 1, &records).encode_to_vec(),
        );
        let frame = Frame::Delta(Delta {
            hosts: vec![update(head, records)],
            ..Delta::default()
        });
        world.input(
            at,
            Input::Frame {
                from: stolen,
                bytes: frame.encode(),
            },
        );
    }
    world.run(secs(30));
    let shown = (0..2).any(|at| {
        let node = world.machines[at].node.as_mut().unwrap();
        node.findings()
            .iter()
            .any(|finding| finding.code == "host-equivocates")
    });
    assert!(shown);
    assert!(world.disagreement().is_none(), "{:?}", world.disagreement());
}

#[test]
fn a_flood_of_heads_from_one_host_is_contained() {
    let mut world = mesh(4, 3);
    let stolen = world.machines[2].host;
    let key = world.keys.host(2);
    let before = world.machines[0].node.as_ref().unwrap().hosts().versions();
    for seq in 1..1000u64 {
        let head = key.sign(domain::HEAD, head_of(&world, 2, seq, &[]).encode_to_vec());
        let frame = Frame::Delta(Delta {
            hosts: vec![update(head, vec![])],
            ..Delta::default()
        });
        world.input(
            0,
            Input::Frame {
                from: stolen,
                bytes: frame.encode(),
            },
        );
    }
    let after = world.machines[0].node.as_ref().unwrap().hosts().versions();
    let seq = after.iter().find(|(host, ..)| *host == stolen).unwrap().2;
    assert!(seq < 150, "took {seq} heads at once");
    assert_eq!(before.len(), after.len());
}

#[test]
fn an_unsigned_commit_id_is_not_enough() {
    // Asking for what nobody has, and offering it, ends by itself.
    let mut world = mesh(5, 2);
    let (from, steps) = (world.machines[1].host, world.steps);
    let items = CommitId([5; 32]).0.to_vec();
    let have = Have {
        kind: SetKind::Commits.into(),
        covered: vec![],
        items,
    };
    world.input(
        0,
        Input::Frame {
            from,
            bytes: Frame::Have(have).encode(),
        },
    );
    world.run(secs(1));
    assert!(world.steps - steps < 200, "{} steps", world.steps - steps);
}

#[test]
fn a_revoked_operator_and_a_stolen_host_cannot_replace_what_came_later() {
    let mut world = mesh(6, 3);
    let thief = world.machines[2].host;
    let grants = (0..2)
        .map(|op| Grant::Operator(world.keys.operator_grant(op)))
        .collect();
    world.grant(0, grants);
    let earlier = world.wall_ms(0);
    world.run(secs(5));
    let ticket = edit(&mut world, 0, "web", "good", 1);
    world.run(secs(1));
    let web = world.answers[&ticket].clone().unwrap().id;
    let revocation = ResourceKey {
        kind: "Revocation".to_owned(),
        namespace: String::new(),
        name: "op1".to_owned(),
    };
    let hex = CommitId(world.keys.operators[1].public).to_string();
    let now = world.wall_ms(0);
    let revoke = Draft::new(&world.keys, 0, now, 2)
        .change(
            &revocation,
            &[],
            Op::Put,
            &format!("revoke-operator op1 {hex}"),
        )
        .sign(&world.keys, 0);
    let ticket = world.submit(0, revoke);
    world.run(secs(1));
    let revoked = world.answers[&ticket].clone().unwrap().id;
    // With clocks from before the revocation, naming what came after them.
    let undo = Draft::new(&world.keys, 1, earlier, 3)
        .change(&revocation, &[revoked], Op::Delete, "")
        .sign(&world.keys, 1);
    let evil = Draft::new(&world.keys, 1, earlier, 4)
        .put(&shop("web"), &[web], "evil")
        .sign(&world.keys, 1);
    let frame = Frame::Delta(Delta {
        commits: vec![undo.encode_to_vec(), evil.encode_to_vec()],
        ..Delta::default()
    });
    world.input(
        0,
        Input::Frame {
            from: thief,
            bytes: frame.encode(),
        },
    );
    world.run(secs(5));
    for at in 0..3 {
        let node = world.machines[at].node.as_mut().unwrap();
        let catalog = node.catalog();
        let revoked = node.operators().iter().filter(|(_, _, gone)| *gone).count();
        assert_eq!(
            (catalog.operators.len(), revoked),
            (1, 1),
            "the revocation stands"
        );
        assert_eq!(catalog.resources[&shop("web")].revision, web);
    }
}
