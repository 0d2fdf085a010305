//! Boxes between hosts that restart, lose their state and are recorded by an attacker.

use proptest::prelude::*;

use super::*;
use crate::key::X25519Key;

const MESH: MeshId = MeshId([9; 16]);

struct Host {
    id: HostId,
    public: [u8; 32],
    pem: Vec<u8>,
    boxes: DatagramBox,
}

impl Host {
    fn new(number: u8, epoch: u32) -> Self {
        let key = X25519Key::generate().unwrap();
        let (public, pem) = (key.public(), key.to_pem().unwrap().to_vec());
        let id = HostId([number; 16]);
        Self {
            id,
            public,
            pem,
            boxes: DatagramBox::new(MESH, id, key, epoch).unwrap(),
        }
    }
    fn restart(&mut self, epoch: u32) {
        let key = X25519Key::from_pem(&self.pem, "test").unwrap();
        self.boxes = DatagramBox::new(MESH, self.id, key, epoch).unwrap();
    }
    fn seal(&mut self, to: &Self, text: &[u8]) -> Vec<u8> {
        self.boxes.seal(to.id, &to.public, text).unwrap()
    }
    fn open(&mut self, from: &Self, bytes: &[u8]) -> Result<Opened, OpenError> {
        let (id, public) = (from.id, from.public);
        self.boxes
            .open(bytes, |host| (host == id).then_some(public))
    }
}

/// Sends until something arrives; returns how many tries that took.
fn deliver(from: &mut Host, to: &mut Host, text: &[u8]) -> usize {
    for tries in 1..=6 {
        let datagram = from.seal(to, text);
        match to.open(from, &datagram) {
            Ok(Opened::Datagram { bytes, .. }) => {
                assert_eq!(bytes, text);
                return tries;
            }
            Ok(Opened::Notice { bytes, .. }) => {
                assert!(bytes.len() <= datagram.len(), "no amplification");
                match from.open(to, &bytes) {
                    Ok(Opened::Notice { bytes, .. }) => {
                        let _last = to.open(from, &bytes);
                    }
                    Ok(Opened::Learnt { .. }) | Err(_) => {}
                    Ok(Opened::Datagram { .. }) => panic!("a notice is empty"),
                }
            }
            Ok(Opened::Learnt { .. }) | Err(_) => {}
        }
    }
    panic!("nothing arrives")
}

#[test]
fn the_first_datagram_teaches_the_epoch_and_learning_it_elsewhere_saves_it() {
    let (mut a, mut b) = (Host::new(1, 3), Host::new(2, 5));
    assert_eq!(deliver(&mut a, &mut b, b"ping"), 2);
    assert_eq!(deliver(&mut b, &mut a, b"pong"), 1);
    let (mut a, mut b) = (Host::new(1, 3), Host::new(2, 5));
    a.boxes.learn(b.id, &b.public, 5);
    assert_eq!(deliver(&mut a, &mut b, b"ping"), 1);
}

#[test]
fn size_and_first_byte() {
    let (mut a, b) = (Host::new(1, 1), Host::new(2, 1));
    let datagram = a.seal(&b, b"x");
    assert_eq!(datagram.len(), OVERHEAD + 1);
    assert_eq!(datagram[0], VERSION);
    assert!(
        !datagram.windows(16).any(|w| w == [2; 16]),
        "the receiver is not named"
    );
    assert_eq!(
        a.boxes.seal(b.id, &b.public, &vec![0; LIMIT + 1]),
        Err(SealError::Long)
    );
    assert_eq!(a.boxes.seal(b.id, &[0; 32], b"x"), Err(SealError::Key));
}

#[test]
fn a_replay_is_refused_in_the_same_run_and_after_a_restart_of_either() {
    let (mut a, mut b) = (Host::new(1, 1), Host::new(2, 1));
    deliver(&mut a, &mut b, b"hello");
    let recorded = a.seal(&b, b"again");
    assert!(matches!(b.open(&a, &recorded), Ok(Opened::Datagram { .. })));
    assert_eq!(b.open(&a, &recorded), Err(OpenError::Replayed(a.id)));
    b.restart(2);
    assert!(
        matches!(b.open(&a, &recorded), Ok(Opened::Notice { .. })),
        "nothing is delivered"
    );
    a.restart(2);
    deliver(&mut a, &mut b, b"new run");
    assert!(!matches!(
        b.open(&a, &recorded),
        Ok(Opened::Datagram { .. })
    ));
}

#[test]
fn a_lost_epoch_is_raised_above_what_peers_know() {
    let (mut a, mut b) = (Host::new(1, 40), Host::new(2, 1));
    deliver(&mut a, &mut b, b"x");
    deliver(&mut b, &mut a, b"x");
    a.restart(1);
    assert!(deliver(&mut a, &mut b, b"back") <= 4);
    assert!(a.boxes.epoch() > 40);
    deliver(&mut b, &mut a, b"seen");
}

#[test]
fn strangers_other_meshes_and_changed_bytes_do_not_open() {
    let (mut a, mut b, c) = (Host::new(1, 1), Host::new(2, 1), Host::new(3, 1));
    deliver(&mut a, &mut b, b"x");
    let good = a.seal(&b, b"payload");
    assert_eq!(b.boxes.open(&good, |_| None), Err(OpenError::Unknown(a.id)));
    assert_eq!(
        b.boxes.open(&good, |_| Some(c.public)),
        Err(OpenError::Forged(a.id))
    );
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let opened = b.open(&a, &bad);
        assert!(opened.is_err(), "byte {at}: {opened:?}");
    }
    let key = X25519Key::from_pem(&a.pem, "test").unwrap();
    let mut elsewhere = DatagramBox::new(MeshId([8; 16]), a.id, key, 7).unwrap();
    let foreign = elsewhere.seal(b.id, &b.public, b"x").unwrap();
    assert_eq!(b.open(&a, &foreign), Err(OpenError::Forged(a.id)));
    assert!(
        matches!(b.open(&a, &good), Ok(Opened::Datagram { .. })),
        "the true one still opens"
    );
}

#[test]
fn a_member_cannot_push_the_epoch_to_its_end() {
    let (mut a, mut b) = (Host::new(1, 1), Host::new(2, 1));
    deliver(&mut a, &mut b, b"x");
    a.boxes.learn(b.id, &b.public, u32::MAX - 1);
    let pushing = a.seal(&b, b"x");
    assert_eq!(b.open(&a, &pushing), Ok(Opened::Learnt { from: a.id }));
    assert_eq!(b.boxes.epoch(), 1);
}

proptest! {
    #[test]
    fn bytes_from_outside_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (a, mut b) = (Host::new(1, 1), Host::new(2, 1));
        let public = a.public;
        prop_assert!(b.boxes.open(&bytes, |_| Some(public)).is_err());
        let mut framed = vec![VERSION];
        framed.extend_from_slice(&bytes);
        prop_assert!(b.boxes.open(&framed, |_| Some(public)).is_err());
    }

    #[test]
    fn two_hosts_always_find_each_other(steps in prop::collection::vec((0_u8..4, 1_u32..50), 1..25)) {
        let (mut a, mut b) = (Host::new(1, 1), Host::new(2, 1));
        for (what, epoch) in steps {
            match what {
                0 => a.restart(epoch),
                1 => b.restart(epoch),
                2 => a.boxes.learn(b.id, &b.public, epoch),
                _ => b.boxes.learn(a.id, &a.public, epoch),
            }
            deliver(&mut a, &mut b, b"to b");
            deliver(&mut b, &mut a, b"to a");
        }
    }
}
