//! A Redis with a certificate is believed by the authority that was named, and by nothing else.

use std::{fs, path::Path, process::Command};

use super::*;
use crate::{
    store::conformance::{ask, done, lead, settle},
    world::redis::free_port,
};
use oncegate::store::Woken;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes what a server of this name needs into its folder; tells the settings that name it.
    fn equip(&self, folder: &Path, name: &str) -> Vec<String> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let files = [
            ("cert-file", certificate.pem()),
            ("key-file", key.serialize_pem()),
            ("ca-cert-file", self.0.pem()),
        ];
        let write = |(setting, text): (&str, String)| {
            let file = folder.join(setting);
            fs::write(&file, text).expect("its files");
            [format!("--tls-{setting}"), file.to_string_lossy().into_owned()]
        };
        let all = files.into_iter().flat_map(write);
        all.chain(["--tls-auth-clients", "no"].map(str::to_owned)).collect()
    }

    /// A server of this name that has one port with TLS, its second, and another for the test.
    fn server(&self, name: &str, more: impl Fn(u16) -> String) -> RedisServer {
        RedisServer::start_with(|folder, port, tls_port| {
            let text = format!(
                "--bind 127.0.0.1 --port {port} --tls-port {tls_port} --appendonly no {}",
                more(tls_port)
            );
            text.split_whitespace().map(str::to_owned).chain(self.equip(folder, name)).collect()
        })
    }

    fn address(&self, url: &str) -> Address {
        Address::parse(url).expect("an address").trusting(&self.0.pem()).expect("an authority")
    }
}

fn of(address: Address) -> Settings {
    Settings { address, ..settings("redis://nobody") }
}

/// Why a store cannot be reached.
async fn refusal(address: Address) -> String {
    let store = Redis::connect(of(address)).expect("it starts");
    match store.ready(Duration::from_secs(1)).await {
        Err(StoreError::Down(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn plain(_: u16) -> String {
    String::new()
}

#[tokio::test]
async fn replicas_agree_and_wake_each_other_over_tls() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", plain);
    let address = authority.address(&format!("rediss://127.0.0.1:{}", server.bus_port));
    let (one, two) = (connected_as(of(address.clone())).await, connected_as(of(address)).await);
    listening(&server, 2).await;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    let claimed = two.claim(&ask(2, "a", "order")).await;
    let Ok(Claimed::Follow { wake, .. }) = claimed else { panic!("{claimed:?}") };
    settle(&*one, &hold, done(&hold, "paid")).await;
    assert!(matches!(wake.await, Ok(Woken::Answered { .. })), "the answer comes by push");
}

#[tokio::test]
async fn a_server_that_another_authority_signed_is_down_and_says_why() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let server = theirs.server("127.0.0.1", plain);
    let url = format!("rediss://127.0.0.1:{}", server.bus_port);
    let refused = refusal(ours.address(&url)).await;
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    let refused = refusal(Address::parse(&url).expect("an address")).await;
    assert!(refused.contains("invalid peer certificate"), "of those that the machine believes: {refused}");
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_name_is_down_and_says_why() {
    let authority = Authority::new();
    let server = authority.server("redis.shop.example", plain);
    let refused = refusal(authority.address(&format!("rediss://127.0.0.1:{}", server.bus_port))).await;
    assert!(refused.contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn sentinels_and_their_primary_are_reached_over_tls() {
    let authority = Authority::new();
    let primary = authority.server("127.0.0.1", plain);
    let sentinel = RedisServer::start_with(|folder, port, tls_port| {
        let file = folder.join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\ntls-port {tls_port}\ntls-replication yes\n\
             sentinel monitor shop 127.0.0.1 {} 1\n",
            primary.bus_port
        );
        fs::write(&file, text).expect("its settings");
        let arguments = [file.to_string_lossy().into_owned(), "--sentinel".to_owned()];
        arguments.into_iter().chain(authority.equip(folder, "127.0.0.1")).collect()
    });
    let url = format!("rediss+sentinel://127.0.0.1:{}/shop", sentinel.bus_port);
    let store = connected_as(of(authority.address(&url))).await;
    lead(&*store, &ask(1, "a", "order")).await;
    let refused = refusal(Authority::new().address(&url)).await;
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_reached_over_tls() {
    let authority = Authority::new();
    let cluster = |_| format!("--cluster-enabled yes --tls-cluster yes --cluster-port {}", free_port());
    let node = authority.server("127.0.0.1", cluster);
    node.command("CLUSTER ADDSLOTSRANGE 0 16383");
    let url = format!("rediss+cluster://127.0.0.1:{}", node.bus_port);
    let store = connected_as(of(authority.address(&url))).await;
    until("the cluster is up", async || store.claim(&ask(1, "a", "order")).await.ok()).await;
}

// What an operator sees who named the wrong authority.
#[test]
fn the_program_does_not_start_on_a_store_that_it_cannot_believe_and_says_so() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let server = theirs.server("127.0.0.1", plain);
    let folder = tempfile::tempdir().expect("a place for files");
    let (ca, file) = (folder.path().join("ca.pem"), folder.path().join("oncegate.toml"));
    fs::write(ca, ours.0.pem()).expect("the place is ours");
    let text = format!(
        "listener = [{{ address = \"127.0.0.1:0\" }}]\n\
         upstream = [{{ name = \"shop\", servers = [\"http://127.0.0.1:1\"] }}]\n\
         store = {{ kind = \"redis\", url = \"rediss://127.0.0.1:{}\", ca = \"ca.pem\" }}\n\
         route = [{{ name = \"all\", upstream = \"shop\" }}]\n",
        server.bus_port
    );
    fs::write(&file, text).expect("the place is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    let ended = command.args(["run", "--config"]).arg(file).output().expect("the program starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("invalid peer certificate"), "{said}");
}
