//! Identity of an executable file.

/// Identity of an executable as the kernel sees it: the file behind `task->mm->exe_file`.
///
/// It identifies the file, not a path: a copy of the file is another executable, a hard link or a
/// bind mount of it is the same one. A script has the identity of its interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct ExecutableId {
    /// `s_dev` of the file's superblock in the kernel's own encoding: `major << 20 | minor`
    /// (include/linux/kdev_t.h). `stat` encodes `st_dev` differently.
    pub device: u64,
    /// `i_ino` of the file.
    pub inode: u64,
}
