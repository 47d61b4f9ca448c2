use super::*;

fn path_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("secrets/signing-keys.json")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn keys_are_made_once_and_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let first = SigningKeys::open(&path_in(&dir)).unwrap();
    let content = fs::read(path_in(&dir)).unwrap();
    assert_eq!((mode(&path_in(&dir)), mode(&dir.path().join("secrets"))), (0o600, 0o700));
    assert_eq!(fs::read_dir(dir.path().join("secrets")).unwrap().count(), 1, "nothing is left beside the file");

    let second = SigningKeys::open(&path_in(&dir)).unwrap();
    assert_eq!(first.active, second.active);
    assert_eq!(fs::read(path_in(&dir)).unwrap(), content);
}

#[test]
fn processes_that_start_together_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(&dir);
    let open = |path: PathBuf| std::thread::spawn(move || SigningKeys::open(&path).unwrap().active);
    let threads: Vec<_> = (0..8).map(|_| open(path.clone())).collect();
    let mut names: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    names.dedup();
    assert_eq!(names.len(), 1);
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    SigningKeys::open(&path_in(&dir)).unwrap();
    for looser in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(path_in(&dir), fs::Permissions::from_mode(looser)).unwrap();
        let refused = SigningKeys::open(&path_in(&dir)).unwrap_err();
        assert!(matches!(refused, SecretError::TooOpen { .. }), "{looser:o}: {refused}");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    fs::set_permissions(path_in(&dir), fs::Permissions::from_mode(0o400)).unwrap();
    assert!(SigningKeys::open(&path_in(&dir)).is_ok());
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    SigningKeys::open(&path_in(&dir)).unwrap();
    let good = fs::read_to_string(path_in(&dir)).unwrap();
    let active = SigningKeys::open(&path_in(&dir)).unwrap().active;
    let cases = [
        (String::new(), "ends too early"),
        ("secret".into(), "not JSON"),
        ("{\"version\":1}".into(), "has not the fields"),
        (good.replace("\"version\": 1", "\"version\": 2"), "version is 2"),
        (good.replacen(&active, "another", 1), "no key"),
        ("{\"version\":1,\"active\":\"k\",\"keys\":{\"k\":\"c2hvcnQ\"}}".into(), "not 32 bytes"),
        (format!("{good}{}", " ".repeat(70_000)), "longer than"),
    ];
    for (content, reason) in cases {
        fs::write(path_in(&dir), &content).unwrap();
        let refused = SigningKeys::open(&path_in(&dir)).unwrap_err().to_string();
        assert!(refused.contains(reason), "{content:?}: {refused}");
        assert!(!refused.contains("c2hvcnQ"), "a key is never told");
        assert_eq!(fs::read_to_string(path_in(&dir)).unwrap(), content);
    }
}

#[test]
fn a_key_that_is_no_longer_active_still_verifies() {
    let keys = "{\"version\":1,\"active\":\"new\",\"keys\":{\
        \"old\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\
        \"new\":\"BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}}";
    let keys = SigningKeys::parse(keys.as_bytes()).unwrap();
    assert_eq!(keys.signing().0, "new");
    assert!(keys.verifying("old").is_some() && keys.verifying("other").is_none());
}

#[test]
fn the_file_is_where_the_configuration_says() {
    let mut config = Config { data_dir: PathBuf::from("/data"), ..Config::default() };
    assert_eq!(keys_file(&config), Path::new("/data/secrets/signing-keys.json"));
    config.auth.keys_file = PathBuf::from("/etc/aula/keys.json");
    assert_eq!(keys_file(&config), Path::new("/etc/aula/keys.json"));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shared.json");
    assert!(matches!(SigningKeys::existing(&path), Err(SecretError::Missing { .. })));
    let made = SigningKeys::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(SigningKeys::existing(&path).unwrap().active_fingerprint(), made.active_fingerprint());
    assert_ne!(SigningKeys::ephemeral().unwrap().active_fingerprint(), made.active_fingerprint());
}

#[test]
fn a_fingerprint_is_not_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = SigningKeys::open(&path_in(&dir)).unwrap();
    let (name, fingerprint) = keys.active_fingerprint();
    assert_eq!(fingerprint.len(), 64);
    assert_eq!(keys.fingerprint(name), Some(fingerprint));
    assert!(!fs::read_to_string(path_in(&dir)).unwrap().contains(fingerprint));
}
