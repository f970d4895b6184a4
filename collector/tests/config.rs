//! Configuration: what runs with none, what overrides what, and what an error says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::path::Path;

use pgwitness_collector::config::{Config, ConfigError, Overrides};

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), Overrides::default())
}

fn error(text: &str) -> String {
    let error = load(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

#[test]
fn defaults_run_and_the_effective_form_is_a_configuration() {
    let config = Config::load(None, Overrides::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7433");
    assert_eq!(load(&config.effective()).unwrap(), config);
}

#[test]
fn a_file_overrides_defaults_and_flags_override_it() {
    let config =
        load("data = \"/x\"\ninventory = \"/i.toml\"\n[log]\nname = \"berlin\"\nsegment_mib = 8").unwrap();
    assert_eq!(
        (config.data.as_path(), config.log.name.as_deref()),
        (Path::new("/x"), Some("berlin"))
    );
    assert_eq!(config.inventory.as_deref(), Some(Path::new("/i.toml")));
    assert_eq!(load(&config.effective()).unwrap(), config);
    assert_eq!(
        (config.log.segment_mib, config.log.checkpoint_interval_ms),
        (8, 1000)
    );
    let flags = Overrides {
        data: Some("/y".into()),
        ..Overrides::default()
    };
    assert_eq!(Config::load(None, flags).unwrap().data, Path::new("/y"));
}

#[test]
fn errors_name_the_key_and_what_to_do() {
    assert!(error("dta = \"/x\"").contains("unknown key \"dta\""));
    assert!(error("dta = \"/x\"").contains("did you mean \"data\"?"));
    assert!(error("[log]\nsegment_mb = 3").contains("unknown key \"log.segment_mb\""));
    assert!(error("[log]\nsegment_mb = 3").contains("did you mean \"log.segment_mib\"?"));
    assert!(error("[log]\nsegment_mib = \"much\"").contains("log.segment_mib"));
    assert!(error("[log]\nsegment_mib = 0").contains("log.segment_mib is 0"));
    assert!(error("[log").contains("collector.toml is malformed"));
    assert!(error("[http]\nlisten = \"0.0.0.0:80\"").contains("set http.tls.certificate and http.tls.key"));
    assert!(error("[http]\nnames = [\"a/b\"]").contains("http.names"));
    assert!(
        error("[http]\nnames = [\"a\"]\n[access]\nrequired = false").contains("access.required is false")
    );
    let oidc = "[access.oidc]\nissuer = \"https://id.example\"\naudience = \"a\"\nrole_claim = \"groups\"\n";
    assert!(error(&format!("{oidc}roles = {{}}")).contains("access.oidc.roles"));
    assert!(error(&format!("{oidc}roles = {{ dba = \"king\" }}")).contains("unknown variant"));
    let http = oidc.replace("https://", "http://");
    assert!(error(&format!("{http}roles = {{ dba = \"viewer\" }}")).contains("access.oidc.issuer"));
    let whole = format!(
        "[http]\nlisten = \"0.0.0.0:80\"\nnames = [\"a\", \"b\"]\ntls = {{ certificate = \"/c\", key = \"/k\" }}\n\
         [access]\nrequired = true\n{oidc}jwks = \"/j\"\nca = \"/a\"\nroles = {{ \"x.y\" = \"auditor\", dba = \"viewer\" }}"
    );
    let config = load(&whole).unwrap();
    assert_eq!(load(&config.effective()).unwrap(), config);
    let bucket = "[store]\nurl = \"s3://records/berlin\"\nregion = \"eu-central-1\"\ncredentials = \"/c\"\nca = \"/a\"\n";
    let config = load(&format!("{bucket}endpoint = \"https://s3.example\"")).unwrap();
    assert_eq!(load(&config.effective()).unwrap(), config);
    assert!(error(&format!("{bucket}endpoint = \"http://s3.example\"")).contains("store.allow_http = true"));
    assert!(error(&format!("{bucket}endpoint = \"s3.example\"")).contains("store.endpoint"));
    for wrong in [
        "records/berlin",
        "s3://",
        "s3:///berlin",
        "s3://records/a//b",
        "s3://records/../b",
    ] {
        assert!(
            error(&format!("[store]\nurl = {wrong:?}")).contains("s3://bucket/prefix"),
            "{wrong}"
        );
    }
    assert!(error("[store]\nregion = \"eu-central-1\"").contains("store.url"));
    assert!(error("[log]\nname = \"../x\"").contains("log.name"));
    let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), Overrides::default()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/x.toml"));
}
