//! Kernel modules and what they depend on, in the order they are to be loaded.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name.
    pub(crate) name: String,
    /// The module, not compressed.
    pub(crate) bytes: Vec<u8>,
}

/// Those of the wanted modules that this kernel has as modules, each after what it depends on. The others
/// are part of the kernel or not there; the tests find out.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn collect(folder: &Path, wanted: &[String]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut collected = Vec::new();
    for name in wanted {
        add(name, &files, &mut collected)?;
    }
    Ok(collected)
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        // Not through links: one leads to the sources.
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, collected: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    if collected.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(&name) else {
        return Ok(());
    };
    let bytes = read(file)?;
    for needed in depends(&bytes) {
        add(&needed, files, collected)?;
    }
    collected.push(Module { name, bytes });
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| file.display().to_string()),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .with_context(|| format!("{program} does not start"))?;
    ensure!(
        output.status.success(),
        "{program} does not unpack {}",
        file.display()
    );
    Ok(output.stdout)
}

/// What a module says it depends on: `depends=a,b` among the texts of its section `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]).into_owned();
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_after_what_it_depends_on() {
        let folder = std::env::temp_dir().join(format!("tidegate-xtask-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("net")).unwrap();
        fs::write(
            folder.join("net/top.ko"),
            b"ELF\0license=GPL\0depends=mid-dle,base\0",
        )
        .unwrap();
        fs::write(folder.join("net/mid-dle.ko"), b"ELF\0depends=base\0").unwrap();
        fs::write(folder.join("base.ko"), b"ELF\0depends=\0").unwrap();
        let wanted = ["builtin".to_owned(), "top".to_owned(), "base".to_owned()];
        let names: Vec<String> = collect(&folder, &wanted)
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["base", "mid_dle", "top"]);
    }
}
