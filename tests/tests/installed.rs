//! The chart, installed with both Helms on real nodes, and used as people use it. Run by `just test-nodes`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::process::Stdio;
use std::time::Duration;

use sentinel_tests::cluster::repository;
use sentinel_tests::machines::pods::node_exec;
use sentinel_tests::machines::release::{Cluster, Helm, NAMESPACE, OPS, PATIENCE, Person};
use sentinel_tests::ports::free_port;
use sentinel_tests::wait::until;
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

/// A release has objects of the whole cluster.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn cluster() -> (Cluster, MutexGuard<'static, ()>) {
    let guard = ONE_AT_A_TIME.lock().await;
    (Cluster::find().await, guard)
}

/// Values for images of this build on nodes that are containers.
const IMAGES: [&str; 9] = [
    "--set=operator.image.registry=localhost",
    "--set=operator.image.repository=sentinel-operator",
    "--set=operator.image.pullPolicy=Never",
    "--set=agent.image.registry=localhost",
    "--set=agent.image.repository=sentinel-node-agent",
    "--set=agent.image.pullPolicy=Never",
    "--set=log.format=text",
    "--wait",
    "--timeout=3m",
];

/// Values for commands on the host, and replicas over real stores.
const ON_HOSTS: [&str; 5] = [
    "--set=agent.profile=host",
    "--set=agent.nestedNode=true",
    "--set=storage.kind=mongodb",
    "--set=storage.mongodb.existingSecret.name=mongodb",
    "--set=storage.redis.existingSecret.name=redis",
];

/// For nodes where all is allowed. The version before has no policies.
const WITHOUT_POLICY: [&str; 1] = ["--set=agent.policy.enabled=false"];

/// A rule that allows the shell's programs; the ones of the chart only read.
const ALLOW_BUSYBOX: &str = r#"--set-json=agent.policy.rules=[{"id":"busybox","effect":"Allow","who":"Anyone","what":[{"programs":["/bin/busybox"],"args":"Any"}],"users":"Any","environments":["Container"]}]"#;

/// Two replicas over real stores, commands on the host, with Helm 4: what people do, and what may happen meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes and images: just test-nodes"]
async fn two_replicas_and_host_commands_through_upgrades_failover_and_rotation() {
    let (cluster, _guard) = cluster().await;
    stores(&cluster).await;
    let chart = Cluster::chart();
    let install = ["install", "sentinel-node", chart.as_str()];
    cluster.helm(Helm::Four, &[&install[..], &ON_HOSTS, &WITHOUT_POLICY, &IMAGES].concat()).await;
    let nodes = cluster.all_reachable().await;
    assert_eq!(nodes["items"].as_array().unwrap().len(), cluster.nodes.len(), "{nodes}");
    cluster.helm(Helm::Four, &["test", "sentinel-node"]).await;

    // Commands of both environments, and the examples that need no more than the image has.
    cluster.task("on-host", "Host", &["/bin/sh", "-c", "echo on the host of $(hostname)"]).await;
    cluster.task("in-container", "Container", &["/bin/busybox", "echo", "in the container"]).await;
    for name in ["on-host", "in-container"] {
        cluster.complete(name).await;
    }
    let log =
        cluster.kubectl(&["get", "--raw", &format!("{OPS}/namespaces/default/tasks/on-host/log")]).await;
    for node in &cluster.nodes {
        assert!(log.contains(&format!("on the host of {node}")), "{log}");
    }

    reader_follows_a_log(&cluster).await;
    page_through_the_service_proxy(&cluster).await;

    let release = [chart.as_str(), "--reuse-values", "--wait", "--timeout=3m"];
    agents_are_upgraded_under_a_command(&cluster, &release).await;
    certificates_are_renewed_under_open_sessions(&cluster).await;
    another_replica_leads(&cluster).await;

    cluster.delete_tasks(&["on-host", "in-container", "followed", "long", "after"]).await;
    cluster.helm(Helm::Four, &["uninstall", "sentinel-node", "--wait"]).await;
    only_definitions_are_left(&cluster).await;
}

/// One replica over its own store, commands in the agent's container, with Helm 3.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes and images: just test-nodes"]
async fn helm_install_alone_is_a_working_system() {
    let (cluster, _guard) = cluster().await;
    let chart = Cluster::chart();
    // These nodes have no volumes to claim.
    let volume = ["--set=storage.embedded.persistence.enabled=false"];
    cluster.helm(Helm::Three, &[&["install", "sentinel-node", &chart][..], &volume, &IMAGES].concat()).await;
    cluster.all_reachable().await;
    cluster.helm(Helm::Three, &["test", "sentinel-node"]).await;
    cluster.task("contained", "Container", &["/bin/busybox", "hostname"]).await;
    cluster.complete("contained").await;
    // This profile has no right to the host.
    cluster.task("refused", "Host", &["/bin/true"]).await;
    let failed = ["wait", "--for=condition=Failed", "--timeout=60s", "tasks.sentinelnode.dev/refused"];
    cluster.kubectl(&failed).await;

    // The same release with Helm 4 takes over, and the one of Helm 3 again.
    for helm in [Helm::Four, Helm::Three] {
        let upgrade = ["upgrade", "sentinel-node", &chart, "--reuse-values", "--wait", "--timeout=3m"];
        cluster.helm(helm, &upgrade).await;
        cluster.all_reachable().await;
    }
    tasks_stay_finished_without_their_history(&cluster).await;
    cluster.delete_tasks(&["contained", "refused"]).await;

    let upgrade = ["upgrade", "sentinel-node", &chart, "--reuse-values", "--wait", "--timeout=3m"];
    let values = ["--set=aggregatedApi.enabled=false", ALLOW_BUSYBOX];
    cluster.helm(Helm::Three, &[&upgrade[..], &values].concat()).await;
    command_line_by_a_forwarded_port(&cluster).await;
    let values = ["--set=aggregatedApi.enabled=true", "--set=agent.profile=observe"];
    cluster.helm(Helm::Three, &[&upgrade[..], &values].concat()).await;
    cluster.all_reachable().await;
    cluster.helm(Helm::Three, &["test", "sentinel-node"]).await;
    nothing_runs_where_agents_observe(&cluster).await;

    cluster.helm(Helm::Three, &["uninstall", "sentinel-node", "--wait"]).await;
    only_definitions_are_left(&cluster).await;
}

/// From the version before, whose command continues, and whose History can be read: what everybody does who has it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes and images: just test-nodes"]
async fn the_version_before_is_upgraded_under_a_command() {
    let (cluster, _guard) = cluster().await;
    stores(&cluster).await;
    let (before, chart) = (Cluster::earlier_chart().await, Cluster::chart());
    cluster
        .helm(Helm::Three, &[&["install", "sentinel-node", &before][..], &ON_HOSTS, &IMAGES].concat())
        .await;
    cluster.all_reachable().await;
    cluster.task("earlier", "Host", &["/bin/sh", "-c", "echo by the version before"]).await;
    cluster.complete("earlier").await;

    // Their values, and the defaults of the new chart but for its policy, which would refuse what they run.
    let release = [&[chart.as_str()][..], &ON_HOSTS, &WITHOUT_POLICY, &IMAGES].concat();
    agents_are_upgraded_under_a_command(&cluster, &release).await;
    let pods = ["get", "pods", "-l", "app.kubernetes.io/name=sentinel-node", "-o"];
    let pods = [&pods[..], &["jsonpath={.items[*].spec.containers[0].image}"]].concat();
    let version = format!(":{}", env!("CARGO_PKG_VERSION"));
    // A pod of the version before may still be ending.
    until("every pod is of this version", PATIENCE, || async {
        let images = cluster.ours(&pods).await;
        if images.split(' ').all(|image| image.contains(&version)) { Ok(()) } else { Err(images) }
    })
    .await;
    let log = format!("{OPS}/namespaces/default/tasks/earlier/log");
    assert!(cluster.kubectl(&["get", "--raw", &log]).await.contains("by the version before"));
    cluster.task("now", "Host", &["/bin/true"]).await;
    cluster.complete("now").await;

    cluster.delete_tasks(&["earlier", "long", "now"]).await;
    cluster.helm(Helm::Four, &["uninstall", "sentinel-node", "--wait"]).await;
    only_definitions_are_left(&cluster).await;
}

/// The pod of the operator is replaced, and its store was in it.
async fn tasks_stay_finished_without_their_history(cluster: &Cluster) {
    cluster.ours(&["delete", "pod", "-l", "app.kubernetes.io/component=operator"]).await;
    let lost = r#"--for=jsonpath={.status.conditions[?(@.type=="Archived")].reason}=HistoryLost"#;
    for (name, condition) in [("contained", "Complete"), ("refused", "Failed")] {
        let task = format!("tasks.sentinelnode.dev/{name}");
        cluster.kubectl(&["wait", lost, "--timeout=180s", &task]).await;
        cluster.kubectl(&["wait", &format!("--for=condition={condition}"), "--timeout=1s", &task]).await;
    }
    cluster.all_reachable().await;
}

/// Without the aggregated API, with a port that the kubelet forwards.
async fn command_line_by_a_forwarded_port(cluster: &Cluster) {
    let roles = ["task-runner", "log-reader"];
    let person = cluster.person("forwarded", &roles).await;
    let stranger = cluster.person("outsider", &[]).await;
    for one in [&person, &stranger] {
        cluster.may_forward(one).await;
    }
    let command = ["run", "--all", "--", "/bin/busybox", "echo", "by a forwarded port"];
    // The kubelets mount the new policy in a minute or two, and no agent restarts.
    until("the nodes have the policy that allows it", PATIENCE, || async {
        let ran = person.sentinel(&command).await;
        if ran.code == 0 { Ok(()) } else { Err(ran.err) }
    })
    .await;
    person.sentinel(&command).await.exited(0).has("by a forwarded port");
    person.sentinel(&["check"]).await.has("port-forward to").has("you may forward a port to the operator");
    // More than one frame of it.
    let long = ["run", "--all", "--", "/bin/busybox", "seq", "1", "200000"];
    let printed = person.sentinel(&long).await.exited(0).out;
    assert_eq!(printed.lines().filter(|line| line.ends_with(" | 200000")).count(), cluster.nodes.len());
    stranger.sentinel(&command).await.exited(125).has("forbidden");
    for name in cluster.kubectl(&["get", "tasks.sentinelnode.dev", "-o", "name"]).await.lines() {
        cluster.kubectl(&["delete", name, "--timeout=60s"]).await;
    }
    cluster.forget(&stranger, &[]).await;
    cluster.forget(&person, &roles).await;
}

/// Agents that report their nodes, as a normal user, and run nothing.
async fn nothing_runs_where_agents_observe(cluster: &Cluster) {
    cluster.task("observed", "Container", &["/bin/busybox", "true"]).await;
    let failed = ["wait", "--for=condition=Failed", "--timeout=60s", "tasks.sentinelnode.dev/observed"];
    cluster.kubectl(&failed).await;
    let nodes = cluster.ops("/nodes").await.unwrap();
    let offers =
        |node: &serde_json::Value| node["environments"].as_array().is_some_and(|all| !all.is_empty());
    assert!(!nodes["items"].as_array().unwrap().iter().any(offers), "{nodes}");
    // What a kubelet mounts into a container as a file.
    assert!(
        !nodes.to_string().contains("/etc/hosts") && nodes.to_string().contains("/var/lib/sentinel"),
        "{nodes}"
    );
    cluster.delete_tasks(&["observed"]).await;
}

/// Secrets with the URLs of the stores, as pods reach them.
async fn stores(cluster: &Cluster) {
    let reached = |url: &str| url.replace("127.0.0.1", &cluster.gateway);
    let database = format!("installed{}", std::process::id());
    let mongodb = format!("{}{database}", reached(&cluster.parts.mongodb_uri));
    for (name, url) in [("mongodb", mongodb), ("redis", reached(&cluster.parts.redis_url))] {
        let literal = format!("--from-literal=url={url}");
        cluster.ours(&["create", "secret", "generic", name, &literal]).await;
    }
}

/// With a kubeconfig that has a token and two roles in one namespace.
async fn reader_follows_a_log(cluster: &Cluster) {
    let roles = ["task-viewer", "log-reader"];
    let reader = cluster.person("reader", &roles).await;
    let stranger = cluster.person("stranger", &[]).await;
    let node = &cluster.nodes[0];
    let script =
        "i=0; while [ ! -e /var/followed ]; do echo line $i; i=$((i + 1)); sleep 0.2; done; echo the end";
    cluster.task("followed", "Host", &["/bin/sh", "-c", script]).await;
    let log = format!("{OPS}/namespaces/default/tasks/followed/log?node={node}&follow=true");
    until("the command has begun", PATIENCE, || async {
        let path = format!("{OPS}/namespaces/default/tasks/followed/log?node={node}");
        let log = reader.kubectl(&["get", "--raw", &path]).await?;
        if log.contains("line 0") { Ok(()) } else { Err(log) }
    })
    .await;
    let mut following = reader.following(&["get", "--raw", &log]);
    following.shows("line 9\n").await;
    for node in &cluster.nodes {
        node_exec(node, "touch /var/followed").await.unwrap();
    }
    let text = following.shows("the end\n").await;
    let expected: String = (0..10).map(|line| format!("line {line}\n")).collect();
    assert!(text.starts_with(&expected), "{text}");

    let refused = stranger.kubectl(&["get", "--raw", &log]).await.unwrap_err();
    assert!(refused.contains("Forbidden") && refused.contains("tasks"), "{refused}");
    // A reader may not run anything, nor read in another namespace.
    let create = ["auth", "can-i", "create", "tasks.sentinelnode.dev"];
    assert!(reader.kubectl(&create).await.unwrap_err().is_empty(), "it prints no and fails");
    let elsewhere = format!("{OPS}/namespaces/{NAMESPACE}/tasks/followed/log");
    let refused = reader.kubectl(&["get", "--raw", &elsewhere]).await.unwrap_err();
    assert!(refused.contains("Forbidden"), "{refused}");
    for node in &cluster.nodes {
        node_exec(node, "rm -f /var/followed").await.unwrap();
    }
    cluster.forget(&stranger, &[]).await;
    cluster.forget(&reader, &roles).await;
}

/// In a real browser, behind `kubectl proxy`, with the token of a reader.
async fn page_through_the_service_proxy(cluster: &Cluster) {
    let roles = ["task-viewer", "log-reader"];
    let reader: Person = cluster.person("visitor", &roles).await;
    let port = free_port();
    let mut proxy = Command::new(&cluster.parts.bin.kubectl);
    proxy.arg("--kubeconfig").arg(&cluster.parts.kubeconfig);
    let port_flag = format!("--port={port}");
    let mut proxy =
        proxy.args(["proxy", &port_flag]).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let base = format!(
        "http://127.0.0.1:{port}/api/v1/namespaces/{NAMESPACE}/services/https:sentinel-node-api:https/proxy"
    );
    until("the proxy serves the page", PATIENCE, || async {
        let answer = reqwest::get(format!("{base}/")).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
    let test = repository().join("viewer/browser/installed.mjs");
    let output = Command::new("node")
        .arg("--test")
        .arg(&test)
        .current_dir(repository().join("viewer/browser"))
        .env("PAGE_BASE", &base)
        .env("PAGE_TOKEN", &reader.token)
        .env("PAGE_TASK", "default/on-host")
        .env("PAGE_LINE", format!("on the host of {}", cluster.nodes[0]))
        .output()
        .await
        .expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    proxy.kill().await.unwrap();
    cluster.forget(&reader, &roles).await;
}

/// A command on the host continues while the pods of all agents are replaced, and is adopted.
async fn agents_are_upgraded_under_a_command(cluster: &Cluster, release: &[&str]) {
    let script = "echo start >>/var/recording; while [ ! -e /var/enough ]; do sleep 0.2; done; echo end >>/var/recording; echo over";
    cluster.task("long", "Host", &["/bin/sh", "-c", script]).await;
    for node in &cluster.nodes {
        until("the command has begun", PATIENCE, || node_exec(node, "cat /var/recording")).await;
    }
    let pods =
        ["get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "jsonpath={.items[*].metadata.uid}"];
    let before = cluster.ours(&pods).await;
    let another = ["upgrade", "sentinel-node"];
    let changed = ["--set=agent.podAnnotations.changed=yes"];
    cluster.helm(Helm::Four, &[&another[..], release, &changed].concat()).await;
    let after = cluster.ours(&pods).await;
    assert!(after.split(' ').all(|pod| !before.contains(pod)), "{before}: {after}");
    cluster.all_reachable().await;
    for node in &cluster.nodes {
        node_exec(node, "touch /var/enough").await.unwrap();
    }
    cluster.complete("long").await;
    for node in &cluster.nodes {
        let recording =
            node_exec(node, "cat /var/recording; rm -f /var/recording /var/enough").await.unwrap();
        assert_eq!(recording, "start\nend\n", "{node}");
    }
}

/// The certificate is taken out, another is presented, and no agent has connected again.
async fn certificates_are_renewed_under_open_sessions(cluster: &Cluster) {
    let certificate = ["get", "secret", "sentinel-node-tls", "-o", "jsonpath={.data.tls\\.crt}"];
    let before = cluster.ours(&certificate).await;
    let begun = || async {
        let logs = cluster.ours(&["logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1"]).await;
        logs.matches("session begun").count()
    };
    let open = begun().await;
    let without = r#"{"data":{"tls.crt":null,"tls.key":null}}"#;
    cluster.ours(&["patch", "secret", "sentinel-node-tls", "--type=merge", "-p", without]).await;
    until("another certificate is made", PATIENCE, || async {
        let now = cluster.ours(&certificate).await;
        if !now.is_empty() && now != before { Ok(()) } else { Err(now) }
    })
    .await;
    until("it is in use", PATIENCE, || async {
        let logs = cluster.ours(&["logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1"]).await;
        if logs.matches("certificate reloaded").count() >= 2 { Ok(()) } else { Err(logs) }
    })
    .await;
    cluster.all_reachable().await;
    assert_eq!(begun().await, open, "a Session was begun anew");
}

/// The leader's pod is deleted; the other replica leads, agents and people find it, and commands run.
async fn another_replica_leads(cluster: &Cluster) {
    let holder = ["get", "lease", "sentinel-node-operator", "-o", "jsonpath={.spec.holderIdentity}"];
    let leader = cluster.ours(&holder).await;
    let pod = leader.split('_').next().unwrap();
    cluster.ours(&["delete", "pod", pod, "--wait=false"]).await;
    until("another leads", Duration::from_mins(1), || async {
        let now = cluster.ours(&holder).await;
        if !now.is_empty() && now != leader { Ok(()) } else { Err(now) }
    })
    .await;
    cluster.all_reachable().await;
    cluster.task("after", "Host", &["/bin/true"]).await;
    cluster.complete("after").await;
    cluster.ours(&["rollout", "status", "deployment/sentinel-node-operator", "--timeout=120s"]).await;
}

async fn only_definitions_are_left(cluster: &Cluster) {
    until("only the definitions are left", PATIENCE, || async {
        let left = cluster.left().await;
        let kept = |line: &&str| !line.starts_with("customresourcedefinition.apiextensions.k8s.io/");
        let left: Vec<&str> = left.lines().filter(kept).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    })
    .await;
    // What the release does not own, by name: nothing of the operator's stays.
    let leases = cluster.ours(&["get", "leases,endpointslices,secrets,configmaps", "-o", "name"]).await;
    let ours: Vec<&str> = leases.lines().filter(|name| name.contains("sentinel-node")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}
