//! Rows survive; two daemons do not meet; damage and a full disk are got over.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redb::StorageBackend;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn row(key: &str, value: &str) -> Row {
    Row {
        table: table::COMMIT,
        key: key.into(),
        value: Some(value.into()),
    }
}

/// Writes and says whether it is on disk.
fn stored(disk: &Disk, rows: Vec<Row>) -> bool {
    let (told, heard) = sync_channel(1);
    disk.write(
        rows,
        true,
        Some(Box::new(move |stored| told.send(stored).unwrap())),
    );
    heard.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn rows_survive_and_two_daemons_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path()).unwrap();
    assert!(matches!(
        Disk::open(directory.path()),
        Err(DiskError::InUse(_))
    ));
    assert!(stored(
        &disk,
        vec![row("k", "old"), row("k", "v"), row("gone", "x")]
    ));
    disk.write(
        vec![Row {
            value: None,
            ..row("gone", "")
        }],
        false,
        None,
    );
    disk.put("a", b"b");
    drop(disk);
    let disk = Disk::open(directory.path()).unwrap();
    assert_eq!(disk.rows(), vec![row("k", "v")]);
    assert_eq!(disk.get("a"), Some(b"b".to_vec()));
    assert_eq!(disk.get("none"), None);
    disk.write(vec![row("late", "x")], false, None);
    disk.clear();
    assert!(disk.rows().is_empty());
    drop(disk);
    assert!(Disk::open(directory.path()).unwrap().rows().is_empty());
}

#[test]
fn what_nobody_waits_for_is_on_disk_soon() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path()).unwrap();
    disk.put("a", b"b");
    let start = std::time::Instant::now();
    while disk.get("a").is_none() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.redb"), vec![7; 9000]).unwrap();
    let disk = Disk::open(directory.path()).unwrap();
    assert!(disk.rows().is_empty());
    assert!(directory.path().join("state.redb.damaged").exists());
    assert!(stored(&disk, vec![row("k", "v")]));
}

/// A disk in memory that can be full.
#[derive(Debug, Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Memory {
    fn room(&self) -> io::Result<()> {
        let full = self.full.load(Ordering::SeqCst);
        if full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let bytes = self.bytes.lock().unwrap();
        out.copy_from_slice(
            bytes
                .get(at..at + out.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.room()?;
        self.bytes
            .lock()
            .unwrap()
            .resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let memory = Memory::default();
    let again = memory.clone();
    let open = move || Database::builder().create_with_backend(again.clone());
    let disk = Disk::with(open().unwrap(), Box::new(open)).unwrap();
    assert!(stored(&disk, vec![row("before", "x")]));
    memory.full.store(true, Ordering::SeqCst);
    assert!(!stored(&disk, vec![row("during", "old")]));
    assert!(!stored(&disk, vec![row("during", "x")]));
    memory.full.store(false, Ordering::SeqCst);
    // What failed is written with what comes next, and would be without it.
    assert!(stored(&disk, vec![row("after", "x")]));
    assert_eq!(
        disk.rows(),
        vec![row("after", "x"), row("before", "x"), row("during", "x")]
    );
}
