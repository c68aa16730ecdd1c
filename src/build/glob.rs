//! Patterns of paths in layers.

/// Whether a pattern names a path: `*` is any run of characters within one name; a pattern that names a directory
/// names everything below it as well.
pub(super) fn covers(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    pattern.split('/').all(|pattern| parts.next().is_some_and(|part| name(pattern.as_bytes(), part.as_bytes())))
}

fn name(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => name(rest, text) || text.split_first().is_some_and(|(_, text)| name(pattern, text)),
        (Some((expected, rest)), Some((found, text))) => expected == found && name(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns() {
        let cases = [
            ("usr/lib/*/libc.so*", "usr/lib/x86_64-linux-gnu/libc.so.6", true),
            ("usr/lib/*/libc.so*", "usr/lib/libc.so.6", false),
            ("usr/share/doc", "usr/share/doc/bash/copyright", true),
            ("usr/share/doc", "usr/share/docs", false),
            ("var/log/*", "var/log", false),
            ("var/log/*", "var/log/apt/history.log", true),
            ("*.wants/*udev*", "sockets.target.wants/systemd-udevd-control.socket", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(covers(pattern, path), expected, "{pattern} {path}");
        }
    }
}
