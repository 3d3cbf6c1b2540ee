//! A small disk, for what happens when one is full.

use std::ffi::CString;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// A file system in memory that is full after so many bytes. It goes with the value.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one, which belongs to `owner`; or says why there is none.
    ///
    /// # Errors
    /// Only root can mount one.
    pub fn mount(bytes: u64, owner: u32) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("an ordinary user cannot mount a small disk".into());
        }
        let folder = tempfile::tempdir().unwrap();
        let options = CString::new(format!("size={bytes},uid={owner},gid={owner},mode=755")).unwrap();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
            .unwrap();
        Ok(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.folder.path(), UnmountFlags::DETACH).unwrap();
    }
}
