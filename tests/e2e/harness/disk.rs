//! A small disk for devstack's state, that can be filled.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::World;

/// Its size: what an `up` wants to see free (16 MiB), and a little more.
const SIZE: u64 = 20 << 20;

/// How many files it can hold.
const FILES: &str = "512";

/// An ext4 file system of its own on a loop device, mounted where a world's devstack keeps its state. It goes with this.
pub struct SmallDisk {
    dir: PathBuf,
    image: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts it; the reason where this machine or account cannot.
    pub fn mount(world: &World) -> Result<Self, String> {
        let (dir, image) = (world.state(), world.aside.join("state.img"));
        std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
        std::fs::File::create(&image).and_then(|file| file.set_len(SIZE)).map_err(|error| error.to_string())?;
        // No journal and no reserve: the last byte is anybody's. Small blocks, so that a line needs a new one soon.
        let shape = ["-m", "0", "-b", "1024", "-N", FILES, "-O", "^has_journal"];
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(shape).arg(&image))?;
        // A write that has no block to go to fails at once.
        run(Command::new("mount").args(["-o", "loop,nodelalloc"]).args([&image, &dir]))?;
        let disk = Self { dir, image };
        std::fs::remove_dir(disk.dir.join("lost+found")).map_err(|error| error.to_string())?;
        Ok(disk)
    }

    /// Takes all of its space.
    pub fn fill(&self) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.ballast()).unwrap();
        for size in [1 << 16, 1 << 10] {
            let block = vec![0_u8; size];
            let error = loop {
                if let Err(error) = file.write_all(&block) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
        file.sync_all().unwrap();
    }

    /// Takes all of its places for files, and hardly any space.
    pub fn fill_with_files(&self) {
        std::fs::create_dir(self.crowd()).unwrap();
        let error =
            (0..).find_map(|number| std::fs::File::create(self.crowd().join(format!("{number}"))).err()).unwrap();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }

    /// Gives back what was taken.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.ballast());
        let _ = std::fs::remove_dir_all(self.crowd());
    }

    fn crowd(&self) -> PathBuf {
        self.dir.join("crowd")
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.free();
        if run(Command::new("umount").arg(&self.dir)).is_err() {
            // A node that is still there holds it; the loop device goes with the last user.
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.dir));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Runs a command that this machine may not have or allow.
fn run(command: &mut Command) -> Result<(), String> {
    let name = Path::new(command.get_program()).display().to_string();
    let done = command.env("PATH", path_of_root()).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().replace('\n', " ");
    if done.status.success() { Ok(()) } else { Err(format!("{name}: {said}")) }
}

/// The search path with the directories that an account's own may lack.
fn path_of_root() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
