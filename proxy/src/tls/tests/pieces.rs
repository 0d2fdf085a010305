//! Pieces of any size, in both directions, against plain rustls.

use proptest::prelude::*;

use super::*;

/// Both sides, in one piece and byte by byte.
#[test]
fn pieces_of_every_kind() {
    run(async {
        let two = Two::new();
        for serves in [false, true] {
            for sizes in [&[1][..], &[5, 1, 17], &[usize::MAX]] {
                let (ours, theirs) = tokio::io::duplex(1 << 20);
                let ours = Trickle::new(ours, sizes);
                let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
                let (there, back) = (pattern(40_000), pattern(50_001));
                exchange(&mut ours, &mut theirs, &there, &back).await;
                exchange(&mut ours, &mut theirs, b"x", b"").await;
            }
        }
    });
}

/// Between two of ours, through a connection that holds little.
#[test]
fn much_through_little() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1000);
        let cart = two.world.id("shop", "cart");
        let connect = two.caller.connect(ours, &cart, &two.tunnel);
        let (ours, theirs) = join!(connect, two.server.accept(theirs));
        let ((mut ours, _), (mut theirs, _)) = (ours.unwrap(), theirs.unwrap());
        let (there, back) = (pattern(2_000_000), pattern(1_500_000));
        exchange(&mut ours, &mut theirs, &there, &back).await;
    });
}

/// Nothing is held while nothing is on its way, and little while little waits.
#[test]
fn memory_is_given_back() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut ours, mut theirs) = two.served(ours, theirs).await;
        exchange(&mut ours, &mut theirs, &pattern(300_000), &pattern(300_000)).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut space = [0; 10];
        let mut space = ReadBuf::new(&mut space);
        let read = Pin::new(&mut ours).poll_read(&mut cx, &mut space);
        assert!(read.is_pending());
        assert_eq!(ours.parts().1.held(), (0, 0));
        // The beginning of a record.
        let record = ends::record(&mut theirs, b"hello");
        let io = theirs.get_mut().0;
        io.write_all(&record[..7]).await.unwrap();
        assert!(
            Pin::new(&mut ours)
                .poll_read(&mut cx, &mut space)
                .is_pending()
        );
        assert_eq!(ours.parts().1.held(), (7, 0));
        io.write_all(&record[7..]).await.unwrap();
        let mut hello = [0; 5];
        ours.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
    });
}

/// What is written in small pieces at once goes out as one record.
#[test]
fn small_pieces_share_a_record() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut ours, theirs) = two.called(ours, theirs).await;
        let large = pattern(20_000);
        let slices = [b"one", &b"two"[..], b"", &large, b"three"];
        let slices = slices.map(io::IoSlice::new);
        let count = ours.write_vectored(&slices).await.unwrap();
        assert_eq!(count, 20_011);
        ours.flush().await.unwrap();
        let mut io = ends::raw(theirs);
        let mut bytes = vec![0; 1 << 16];
        let length = io.read(&mut bytes).await.unwrap();
        let mut rest = &bytes[..length];
        let mut records = Vec::new();
        while let [_, _, _, high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            records.push(length - 17);
            rest = &more[length..];
        }
        assert_eq!(records, [6, 16_384, 3_616, 5]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any sizes of pieces, bytes and buffers.
    #[test]
    fn any_pieces(
        serves: bool,
        sizes in prop::collection::vec(prop_oneof![1..40_usize, 1..70_000_usize], 1..6),
        room in 1..100_000_usize,
        lengths in prop::collection::vec((0..120_000_usize, 0..120_000_usize), 1..4),
        renew in 0..4_u64,
    ) {
        run(async move {
            let two = Two::new();
            let (ours, theirs) = tokio::io::duplex(room);
            let ours = Trickle::new(ours, &sizes);
            let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
            if renew > 0 {
                ours.parts().1.renew_after(renew);
            }
            for (there, back) in lengths {
                exchange(&mut ours, &mut theirs, &pattern(there), &pattern(back)).await;
            }
        });
    }
}
