//! Where jobmon finds itself: under cron, in a container, behind a proxy, with a gateway that is of no use.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{finish, in_mounts, unshared};
use crate::harness::peers::{Suite, free_port, pushgateway, tinyproxy};
use crate::harness::{JOBMON, Process, gateway, http, job, sample, temporary_directory, wait_for};
use crate::supervisor::silent;

/// As cron starts it: hardly any environment, a session of its own, stdin at its end, stdout and stderr one pipe.
#[test]
fn e54_crons_environment_is_enough() {
    let gateway = gateway();
    let script = r#"exec setsid --wait env -i PATH=/usr/bin:/bin SHELL=/bin/sh LOGNAME=root JOBMON_NO_SPOOL=1 JOBMON_PUSH_URL="$1" \
        "$0" --job e54 -- sh -c 'cat; echo out; echo err >&2; exit 3' 2>&1 </dev/null"#;
    let output = finish(Command::new("sh").args(["-c", script, JOBMON, &gateway.url]));
    assert_eq!((output.code, output.stdout.as_str()), (3, "out\nerr\n"));
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e54\"}"), Some(3.0));
    // Not even a PATH.
    let output = finish(Command::new("env").args([
        "-i",
        "JOBMON_NO_SPOOL=1",
        JOBMON,
        "--no-push",
        "--",
        "sh",
        "-c",
        "exit 4",
    ]));
    assert_eq!(output, silent(4));
}

/// Cron reads the pipe to its end: it is held for as long as delivery may take, and no longer.
#[test]
fn e55_the_callers_pipe_is_held_no_longer_than_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let mut command = job(["--push-url", &url, "--push-deadline", "1s", "--", "echo", "out"]).command();
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("built");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert_eq!(text, "out\n");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    child.wait().expect("ends");
}

/// What a useless server does to a connection.
#[derive(Debug, Clone, Copy)]
enum Useless {
    Answers(&'static str),
    NeverAnswers,
    Resets,
    TricklesAnswer,
}

fn useless(how: Useless) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            match how {
                Useless::NeverAnswers => held.push(stream),
                // What was not read makes a reset of the end.
                Useless::Resets => drop(stream.read(&mut [0; 10])),
                Useless::Answers(status) => {
                    let _ = stream.read(&mut [0; 16384]);
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"
                    );
                    // Read on, so that the rest of the request does not reset the connection.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                Useless::TricklesAnswer => {
                    std::thread::spawn(move || {
                        let _ = stream.read(&mut [0; 16384]);
                        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                            if stream.write_all(&[*byte]).is_err() {
                                return;
                            }
                            std::thread::sleep(Duration::from_millis(100));
                        }
                    });
                }
            }
        }
    });
    url
}

#[test]
fn e56_a_gateway_that_is_of_no_use_costs_a_line_and_the_deadline() {
    let deadline = Duration::from_secs(1);
    for (how, told, waits) in [
        (Useless::NeverAnswers, "no answer", true),
        (Useless::TricklesAnswer, "no answer", true),
        (Useless::Resets, "", true),
        (Useless::Answers("301 Moved Permanently\r\nLocation: http://127.0.0.1:1/"), "answered 301", false),
        (Useless::Answers("400 Bad Request"), "answered 400 Bad Request: no", false),
        (Useless::Answers("401 Unauthorized"), "answered 401 Unauthorized: no", false),
        (Useless::Answers("413 Payload Too Large"), "answered 413", false),
        (Useless::Answers("429 Too Many Requests"), "answered 429", true),
        (Useless::Answers("500 Internal Server Error"), "answered 500", true),
        (Useless::Answers("503 Service Unavailable\r\nRetry-After: 100"), "answered 503", false),
    ] {
        let url = useless(how);
        let start = Instant::now();
        let output = job(["--push-url", &url, "--push-deadline", "1s", "--", "sh", "-c", "exit 7"]).run();
        let took = start.elapsed();
        assert_eq!(output.code, 7, "{how:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{how:?}: {output:?}");
        assert!(
            output.stderr.starts_with("jobmon: the result of the run could not be pushed url="),
            "{output:?}"
        );
        assert!(output.stderr.contains(told), "{how:?}: {output:?}");
        // Half a second for the machine to be busy with other things.
        assert!(took < deadline + Duration::from_millis(700), "{how:?}: {took:?}");
        assert!(waits || took < deadline, "{how:?}: {took:?}");
    }
}

/// A name server that takes questions and gives no answers.
#[test]
fn e56_names_that_nobody_looks_up_cost_the_deadline_too() {
    let script = r#"
        ip link set lo up
        echo 'nameserver 127.0.0.1' > /mnt/resolv; mount --bind /mnt/resolv /etc/resolv.conf
        exec "$0" --push-url http://gateway.example.net:9091 --push-deadline 1s -- sh -c 'exit 7'"#;
    let mut command = unshared(&["--mount", "--net", "--map-root-user"], &["sh", "-ec"]);
    command.arg(format!("mount -t tmpfs none /mnt; python3 -c 'import socket,time; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); time.sleep(0.1); s.bind((\"127.0.0.1\", 53)); time.sleep(20)' >/dev/null 2>&1 & {script}"));
    let start = Instant::now();
    let output = finish(command.arg(JOBMON).stdout(Stdio::null()));
    let took = start.elapsed();
    assert_eq!(output.code, 7, "{output:?}");
    assert!(output.stderr.starts_with("jobmon: the result of the run could not be pushed"), "{output:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn e57_urls_and_labels_of_every_kind_arrive() {
    let theirs = pushgateway(Suite::Newest);
    let ours = gateway();
    for (job_name, label) in [("a/b", "x"), ("ü", "ß/日本"), (" ", "%2F"), ("..", "?#&"), ("a", "")] {
        for url in [&ours.url, &theirs.url] {
            for base in [url.clone(), format!("{url}/"), url.replace("http://", "http://user:pa%20ss@")] {
                let grouping = format!("l={label}");
                let arguments = [
                    "--push-url",
                    &base,
                    "--job",
                    job_name,
                    "--grouping",
                    &grouping,
                    "--",
                    "sh",
                    "-c",
                    "exit 3",
                ];
                assert_eq!(job(arguments).run(), silent(3), "{base} {job_name:?} {label:?}");
            }
        }
        let series = if label.is_empty() {
            format!("jobmon_exit_code{{instance=\"\",job=\"{job_name}\"")
        } else {
            format!("jobmon_exit_code{{instance=\"\",job=\"{job_name}\",l=\"{label}\"")
        };
        for text in [ours.scrape(), theirs.metrics()] {
            let found = text.lines().any(|line| line.starts_with(&series) && line.ends_with(" 3"));
            assert!(found, "{series}: {text}");
        }
    }
    // A path prefix, IPv6, a socket.
    let prefixed = crate::harness::peers::pushgateway_with(Suite::Newest, &["--web.route-prefix=/push/here"]);
    let v6 = crate::harness::gateway_at("[::1]:0");
    let directory = temporary_directory();
    let path = directory.path().join("socket");
    let forwarder = crate::harness::http::forward(&path, &ours.url);
    for (url, scrape) in [
        (format!("{}/push/here/", prefixed.url), format!("{}/push/here/metrics", prefixed.url)),
        (v6.url.clone(), format!("{}/metrics", v6.url)),
        (format!("unix:{}", path.display()), format!("{}/metrics", ours.url)),
    ] {
        assert_eq!(
            job(["--push-url", &url, "--job", "e57", "--", "sh", "-c", "exit 3"]).run(),
            silent(3),
            "{url}"
        );
        let text = http::get(&scrape).text();
        assert_eq!(sample(&text, "jobmon_exit_code{instance=\"\",job=\"e57\"}"), Some(3.0), "{url}");
    }
    drop(forwarder);
}

/// A real proxy, asked for the names of other machines, and only if it is wanted.
#[test]
fn e58_proxies_are_used_as_the_environment_says_or_not_at_all() {
    let gateway = gateway();
    let proxy = tinyproxy();
    // A name that only the proxy can reach: it is this machine's.
    let script = "cat /etc/hosts > /mnt/hosts; echo 127.0.0.1 gateway.example.net >> /mnt/hosts; mount --bind /mnt/hosts /etc/hosts";
    let named = gateway.url.replace("127.0.0.1", "gateway.example.net");
    let run = |variables: &str, options: &str| {
        let script = format!(
            "mount -t tmpfs none /mnt; {script}; {variables} exec \"$0\" --push-url {named} --push-deadline 500ms --job e58 {options} -- true"
        );
        in_mounts(&script)
    };
    let served =
        || gateway.sample("pushgateway_http_push_size_bytes_count{method=\"post\"}").unwrap_or_default();
    let by_proxy = |count: f64| (served() - count).abs() < 0.5;
    // The proxy asks for itself, so it finds no such name: what gets through got there without it.
    for (variables, options, arrives) in [
        ("", "", true),
        ("http_proxy=http://127.0.0.1:1", "", false),
        ("http_proxy=http://127.0.0.1:1", "--push-proxy none", true),
        ("http_proxy=http://127.0.0.1:1 no_proxy=gateway.example.net", "", true),
    ] {
        let before = served();
        let output = run(variables, options);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(by_proxy(before + 1.0), arrives, "{variables} {options}: {output:?}");
    }
    for (variable, options) in [("http_proxy", &[][..]), ("x", &["--push-proxy", &proxy.url])] {
        let before = (served(), proxy.served());
        // A machine that is not this one, by its number: the proxy connects to it.
        let url = gateway.url.replace("127.0.0.1", "0.0.0.0");
        let words = [&["--push-url", &url, "--job", "e58"][..], options, &["--", "true"]].concat();
        assert_eq!(job(words).env(variable, &proxy.url).run(), silent(0));
        assert!(by_proxy(before.0 + 1.0) && proxy.served() > before.1, "{variable}");
    }
    // This machine is never asked for by a proxy of the environment.
    let before = proxy.served();
    let output = job(["--push-url", &gateway.url, "--", "true"])
        .env("http_proxy", &proxy.url)
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .run();
    assert_eq!((output, proxy.served()), (silent(0), before));
}

/// Each has a FIFO and a name of its own; what the later one says counts.
#[test]
fn e59_two_runs_of_one_job_do_not_disturb_each_other() {
    let gateway = gateway();
    let directory = temporary_directory();
    let run = |n: &str| {
        let script = format!(
            "echo \"$JOBMON_METRICS $JOBMON_RUN_ID\" > {0}/{n}; echo 'n {n}' > $JOBMON_METRICS; while [ ! -e {0}/go{n} ]; do sleep 0.02; done; exit {n}",
            directory.path().display()
        );
        job(["--push-url", &gateway.url, "--job", "e59", "--", "sh", "-c", &script]).start()
    };
    let (mut one, mut two) = (run("1"), run("2"));
    let names = |n: &str| {
        wait_for("a run", || {
            fs::read_to_string(directory.path().join(n)).ok().filter(|text| text.ends_with('\n'))
        })
    };
    let (first, second) = (names("1"), names("2"));
    for (a, b) in first.split_whitespace().zip(second.split_whitespace()) {
        assert_ne!(a, b);
    }
    fs::write(directory.path().join("go2"), "").expect("writable");
    assert_eq!(two.end().code(), Some(2));
    fs::write(directory.path().join("go1"), "").expect("writable");
    assert_eq!(one.end().code(), Some(1));
    let value = |name: &str| gateway.sample(&format!("{name}{{instance=\"\",job=\"e59\"}}"));
    assert_eq!(
        (value("jobmon_exit_code"), value("n"), value("jobmon_running")),
        (Some(1.0), Some(1.0), Some(0.0))
    );
}

/// A spool that others use too, with damaged files in it, and ten thousand that wait.
#[test]
fn e60_a_full_and_damaged_spool_delays_nothing_and_loses_nothing() {
    let directory = temporary_directory();
    let spool = directory.path().join("spool");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let run = |name: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", "5s", "--job", name, "--", "sh", "-c", "exit 3"];
        job(arguments).env("JOBMON_SPOOL_DIR", &spool).env("JOBMON_NO_SPOOL", "0")
    };
    let hurried = |name: &str| {
        let arguments =
            ["--push-url", &url, "--push-deadline", "100ms", "--job", name, "--", "sh", "-c", "exit 3"];
        job(arguments).env("JOBMON_SPOOL_DIR", &spool).env("JOBMON_NO_SPOOL", "0").run()
    };
    let output = hurried("e60");
    assert!(output.stderr.contains("for the next run"), "{output:?}");
    hurried("other");
    let entries = || {
        let files = fs::read_dir(&spool).expect("there").flatten().map(|file| file.path());
        files.filter(|path| path.extension().is_some_and(|e| e == "push")).collect::<Vec<_>>()
    };
    assert_eq!(entries().len(), 2);
    // Damaged ones, one that is nobody's business, and very many.
    let good = fs::read(&entries()[0]).expect("readable");
    for n in 0..10_000 {
        fs::write(spool.join(format!("0-{n:016x}.push")), if n % 2 == 0 { &good[..] } else { b"x" })
            .expect("writable");
    }
    let foreign = spool.join("0-aaaaaaaaaaaaaaaa.push");
    fs::write(&foreign, &good).expect("writable");
    std::os::unix::fs::chown(&foreign, Some(65534), Some(65534)).expect("we are root");
    let gateway = crate::harness::gateway_at(&format!("127.0.0.1:{port}"));
    let start = Instant::now();
    assert_eq!(run("e60").run().code, 3);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e60\"}"), Some(3.0));
    let mut flush = Command::new(JOBMON);
    let output = finish(flush.args(["spool", "flush", "--spool-dir"]).arg(&spool));
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"other\"}"), Some(3.0), "{output:?}");
    assert!(output.stdout.ends_with(" delivered, 0 left, 0 refused\n"), "{output:?}");
    assert!(foreign.exists() && entries() == [foreign], "the foreign one waits for its owner");
}

/// As process 1, told to end, with a gateway that never answers: all of it takes less than the 30 seconds that a pod has.
#[test]
fn e61_in_a_pod_everything_ends_within_its_grace_and_says_why() {
    let silent_server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent_server.local_addr().expect("bound"));
    let directory = temporary_directory();
    let log = directory.path().join("termination-log");
    fs::write(&log, "").expect("writable");
    let up = directory.path().join("up");
    // The command ends when it is told to; something that it has started does not.
    let script = format!(
        "trap 'exit 7' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & touch {}; while :; do sleep 0.05; done",
        up.display()
    );
    let mounts = "mount -t tmpfs none /mnt; touch /mnt/null /mnt/termination-log; mount --bind /dev/null /mnt/null; \
                  mount --bind \"$1\" /mnt/termination-log; mount --rbind /mnt /dev; shift; \
                  exec unshare --pid --fork --mount-proc \"$@\"";
    let mut command = unshared(&["--mount", "--map-root-user"], &["sh", "-ec", mounts, "sh"]);
    command.arg(&log).args([
        JOBMON,
        "--kill-after",
        "2s",
        "--push-deadline",
        "2s",
        "--job",
        "e61",
        "--push-url",
        &url,
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let mut run = Process(command.stderr(Stdio::null()).spawn().expect("unshare is there"));
    wait_for("the command", || up.exists().then_some(()));
    let init = wait_for("process 1", || super::children(run.id()).first().copied());
    let start = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), Signal::SIGTERM).expect("it is there");
    assert_eq!(run.end().code(), Some(7));
    let took = start.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(8), "{took:?}");
    let message = fs::read_to_string(&log).expect("there");
    assert!(message.starts_with("jobmon: job e61 failed with exit code 7 after "), "{message:?}");
    // The defaults: 10 s for what is left, 10 s for delivery.
    let help = job(["--help"]).run().stdout;
    assert!(help.contains("[default: 10s]"));
    // The pod's name becomes no label, unless one asks for it.
    let gateway = gateway();
    assert_eq!(job(["--push-url", &gateway.url, "--job", "pod", "--", "true"]).run(), silent(0));
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("text");
    assert!(!gateway.scrape().contains(&host));
    assert_eq!(
        job(["--push-url", &gateway.url, "--instance", "--job", "pod", "--", "true"]).run(),
        silent(0)
    );
    assert!(gateway.scrape().contains(&format!("jobmon_success{{instance=\"{host}\",job=\"pod\"}} 1")));
}

/// A command that ends because it is told to, and then a limit, where one was asked for.
#[test]
fn e61_a_command_that_does_not_end_is_killed_if_a_time_was_given_for_that() {
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let flags = ["--pid", "--fork", "--mount-proc", "--map-root-user"];
    let mut command =
        unshared(&flags, &[JOBMON, "--no-push", "--kill-after", "500ms", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare is there");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("piped").read_exact(&mut up).expect("up");
    let mut run = Process(child);
    let init = wait_for("process 1", || super::children(run.id()).first().copied());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), Signal::SIGTERM).expect("it is there");
    assert_eq!(run.end().code(), Some(137));
}

/// A memory cgroup of our own, version 1 or 2, whichever there is; where none can be made, its file is put in its place.
#[test]
fn e62_a_command_killed_for_want_of_memory_is_told_from_others() {
    let eats = "import mmap,sys\nm=mmap.mmap(-1, 300<<20)\nfor i in range(0, 300<<20, 4096): m[i]=1";
    let script = r#"
        cg=/sys/fs/cgroup/memory/jobmon-test-$$; limit=memory.limit_in_bytes
        [ -d /sys/fs/cgroup/memory ] || { cg=/sys/fs/cgroup/jobmon-test-$$; limit=memory.max; }
        mkdir $cg && echo 60000000 > $cg/$limit || exit 99
        [ $limit = memory.limit_in_bytes ] || echo 0 > $cg/memory.swap.max || true
        sh -c 'echo $$ > '$cg'/cgroup.procs; exec "$0" --dry-run -- sh -c "$1"' "$0" "$1"; code=$?
        rmdir $cg; exit $code"#;
    let run = |command: &str| {
        finish(Command::new("sh").args(["-c", script, JOBMON, command]).env("JOBMON_NO_SPOOL", "1"))
    };
    let eaten = run(&format!("exec python3 -c '{eats}'"));
    if eaten.code == 99 {
        return without_cgroup();
    }
    assert_eq!(eaten.code, 137, "{eaten:?}");
    assert!(
        eaten.stderr.starts_with("jobmon: the kernel killed the command for want of memory\n"),
        "{eaten:?}"
    );
    assert_eq!(sample(&eaten.stderr, "jobmon_oom_killed"), Some(1.0));
    let killed = run("kill -9 $$");
    assert_eq!((killed.code, sample(&killed.stderr, "jobmon_oom_killed")), (137, Some(0.0)), "{killed:?}");
    without_cgroup();
}

/// The counters, as files that the command itself changes when its supervisor waits for it, so has read them.
fn without_cgroup() {
    let script = r#"mount -t tmpfs none /sys/fs/cgroup; mount -t tmpfs none /mnt
        echo '0::/pod' > /mnt/cgroup; mount --bind /mnt/cgroup /proc/self/cgroup 2>/dev/null || true
        mkdir -p /sys/fs/cgroup/memory
        printf 'low 0\noom 0\noom_kill 3\n' | tee /sys/fs/cgroup/memory.events > /sys/fs/cgroup/memory/memory.oom_control
        exec "$0" --dry-run -- sh -c 'until grep -q "^State:.S" /proc/$PPID/status; do :; done
            sed -i "s/oom_kill 3/oom_kill 4/" /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; kill -9 $$'"#;
    let output = in_mounts(script);
    assert_eq!((output.code, sample(&output.stderr, "jobmon_oom_killed")), (137, Some(1.0)), "{output:?}");
}

#[test]
fn e63_a_failed_delivery_counts_only_if_that_is_asked_for() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let gateway = gateway();
    let run = |options: &[&str], url: &str, command: &str| {
        let words =
            [options, &["-q", "--push-deadline", "200ms", "--push-url", url, "--", "sh", "-c", command]]
                .concat();
        job(words).run().code
    };
    assert_eq!(run(&[], &url, "exit 0"), 0);
    assert_eq!(run(&["--strict"], &url, "exit 0"), 121);
    assert_eq!(run(&["--strict"], &url, "exit 3"), 3, "no failure is hidden");
    assert_eq!(run(&["--strict"], &gateway.url, "exit 0"), 0);
    assert_eq!(run(&["--strict", "--push-url", &gateway.url], &url, "exit 0"), 121, "one of two");
    assert_eq!(run(&["--strict", "--textfile-dir", "/does/not/exist"], &gateway.url, "exit 0"), 121);
    assert_eq!(run(&["--strict", "--success-codes", "3"], &url, "exit 3"), 3);
}

#[test]
fn e64_a_wrong_call_runs_nothing_and_wrong_monitoring_runs_the_job() {
    let directory = temporary_directory();
    let mark = directory.path().join("ran");
    let mark_path = mark.to_str().expect("plain");
    for arguments in [
        &[][..],
        &["--"],
        &["--nonsense", "touch", mark_path],
        &["--no-push=1", "touch", mark_path],
        &["-z", "touch", mark_path],
        &["--timeout", "soon", "touch", mark_path],
        &["--retries=-1", "touch", mark_path],
        &["--output=loud", "touch", mark_path],
    ] {
        let output = job(arguments).run();
        assert_eq!(output.code, 125, "{arguments:?}");
        assert!(
            output.stderr.contains("Usage: jobmon") || output.stderr.contains("nothing was run"),
            "{output:?}"
        );
        assert!(!mark.exists(), "{arguments:?}");
    }
    for arguments in [
        &["--push-url", "nonsense"][..],
        &["--no-push", "--label", "1=2"],
        &["--no-push", "--config", "/does/not/exist"],
        &["--no-push", "--schedule", "whenever"],
        &["--no-push", "--success-codes", "x"],
        &["--no-push", "--push-header", "x"],
    ] {
        let output = job(arguments.iter().chain(&["--", "sh", "-c", "exit 3"])).run();
        assert_eq!((output.code, output.stderr.lines().count()), (3, 1), "{output:?}");
    }
    // A secret that is not there: pushed without it.
    let gateway = gateway();
    let output = job([
        "--push-url",
        &gateway.url,
        "--job",
        "e64",
        "--push-bearer-token-file",
        "/none",
        "--",
        "sh",
        "-c",
        "exit 3",
    ])
    .run();
    assert_eq!((output.code, output.stderr.lines().count()), (3, 1), "{output:?}");
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e64\"}"), Some(3.0));
}

#[test]
fn e65_nobody_and_nothing_to_ask_is_no_reason_to_panic() {
    let gateway = gateway();
    let run = |prefix: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args([
            "--job",
            "e65",
            "--push-url",
            &gateway.url,
            "--timeout",
            "10s",
            "--",
            "/bin/sh",
            "-c",
            "exit 3",
        ]);
        finish(command.env("JOBMON_NO_SPOOL", "1").env_remove("HOME"))
    };
    let directory = temporary_directory();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let program = directory.path().join("jobmon");
    fs::copy(JOBMON, &program).expect("copied");
    let program = program.to_str().expect("plain");
    assert_eq!(run(&["setpriv", "--reuid=1234567", "--regid=7654321", "--clear-groups", program]), silent(3));
    assert_eq!(run(&["unshare", "--map-root-user", program]), silent(3));
    let bare = "mount -t tmpfs none /sys; mount -t tmpfs none /proc; exec \"$0\" \"$@\"";
    assert_eq!(run(&["unshare", "--mount", "--map-root-user", "sh", "-ec", bare, program]), silent(3));
    assert_eq!(gateway.sample("jobmon_exit_code{instance=\"\",job=\"e65\"}"), Some(3.0));
}
