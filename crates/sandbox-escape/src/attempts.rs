//! The list of attempts, and the two ways to make each.

use std::sync::Arc;

use crate::careless::OpenProxy;
use crate::outside::Outside;
use crate::{Against, Attempt, Ground, Target, way_out};

/// Makes the list, and the macros that make tests of it.
macro_rules! list {
    ($d:tt $($area:ident $against:ident { $($attempt:ident $(($root:ident))?)* })*) => {
        /// All attempts.
        pub const ATTEMPTS: &[Attempt] = &[
            $($(Attempt {
                name: stringify!($attempt),
                against: Against::$against,
                needs_root: false $(|| stringify!($root).len() > 0)?,
                run: |ground| Box::pin(crate::$area::$attempt(ground)),
            },)*)*
        ];

        /// One test of each attempt, made in a guarded sandbox: it must fail.
        #[macro_export]
        macro_rules! holds {
            ($d target:expr) => {
                mod holds {
                    #[allow(unused_imports, reason = "for the expression that makes the target")]
                    use super::*;

                    $($(#[test]
                    fn $attempt() {
                        $crate::holds(stringify!($attempt), &$d target);
                    })*)*
                }
            };
        }

        /// One test of each attempt in a guarded sandbox, and one with the protection switched off.
        #[macro_export]
        macro_rules! suite {
            ($d target:expr) => {
                $crate::holds!($d target);

                mod bites {
                    #[allow(unused_imports, reason = "for the expression that makes the target")]
                    use super::*;

                    $($(#[test]
                    fn $attempt() {
                        $crate::bites(stringify!($attempt), &$d target);
                    })*)*
                }
            };
        }
    };
}

list! {
    $
    files Isolation {
        reads_a_file_of_the_host
        writes_a_file_of_the_host
        looks_through_proc_into_another_root
        opens_a_file_by_its_number (root)
        opens_the_descriptors_of_its_keeper
        reads_the_program_that_keeps_it
        opens_a_device_of_the_host (root)
        makes_a_device (root)
        gains_rights_by_a_set_user_id_program
        leaves_a_set_user_id_file_for_the_host
        finds_another_sandboxs_door
    }
    kernel Isolation {
        makes_a_user_namespace_to_mount_in
        makes_calls_that_kernels_were_broken_by
        opens_a_socket_of_another_kind
        changes_a_setting_of_the_kernel (root)
    }
    processes Isolation {
        ends_a_process_of_the_host
        reads_the_variables_of_a_process_of_the_host
        starts_more_processes_than_it_may
        takes_more_memory_than_it_may
    }
    processes Care {
        outlives_its_deadline
    }
    network Isolation {
        connects_to_a_server_of_the_host
        sends_a_name_to_a_resolver
        meets_an_abstract_socket_of_the_host
        meets_a_socket_file_of_the_host
    }
    network WayOut {
        asks_the_way_out_for_a_host_that_it_may_not_have
    }
    allowed AllowList {
        has_the_way_out_look_a_secret_up
        names_another_server_in_a_handshake
        names_another_server_in_a_request
        hides_a_host_before_a_character_that_ends_it
        is_led_to_the_host_by_an_allowed_name
        follows_a_redirect_to_the_host
        has_an_allowed_server_relay_a_tunnel
    }
    harness Care {
        leads_a_write_out_by_a_link
        leads_a_read_out_by_a_link
        leads_a_write_out_by_a_link_put_there_in_time
        names_a_place_outside_in_an_archive
        brings_rights_and_devices_in_an_archive
        unpacks_to_more_than_there_is
        has_git_run_a_program
    }
}

/// Makes an attempt in a guarded sandbox.
///
/// # Panics
/// Where it gets out.
pub fn holds(name: &str, target: &dyn Target) {
    run(async {
        let attempt = find(name);
        let sandbox = target.guarded().await;
        let session = Arc::clone(&sandbox.session);
        let outside = Outside::new();
        let guard = match attempt.against {
            Against::WayOut => Some(way_out::unrestricted()),
            Against::AllowList => Some(way_out::allow_list(&outside)),
            Against::Isolation | Against::Care => None,
        };
        if let Some(guard) = guard {
            session.egress().unwrap().serve(guard).await.unwrap();
        }
        let ground = Ground { sandbox, outside, careless: false };
        match make(attempt, &ground).await {
            Ok(got) => assert!(got.is_empty(), "{name} gets out: {got:?}"),
            Err(why) => say(&format!("{name} was not tried: {why}")),
        }
    });
}

/// Makes an attempt where what stops it is switched off.
///
/// # Panics
/// Where it does not get out, so that its failure elsewhere shows nothing.
pub fn bites(name: &str, target: &dyn Target) {
    run(async {
        let attempt = find(name);
        if attempt.needs_root && !rustix::process::geteuid().is_root() {
            return say(&format!("{name}: the kernel itself keeps an ordinary user from it"));
        }
        let guarded = attempt.is_through_the_way_out();
        let sandbox = if guarded { target.guarded().await } else { target.open().await };
        let outside = Outside::new();
        if guarded {
            let open = OpenProxy { names: Arc::clone(&outside.names) };
            sandbox.session.egress().unwrap().serve(Arc::new(open)).await.unwrap();
        }
        let ground = Ground { sandbox, outside, careless: attempt.against == Against::Care };
        match make(attempt, &ground).await {
            Ok(got) => assert!(!got.is_empty(), "{name} does not get out of what does not hold it"),
            Err(why) => say(&format!("{name} was not tried: {why}")),
        }
    });
}

fn find(name: &str) -> &'static Attempt {
    let found = ATTEMPTS.iter().find(|attempt| attempt.name == name);
    found.unwrap_or_else(|| panic!("the suite has no attempt '{name}'"))
}

/// What an attempt got, by its own account and by what was noticed outside. The sandbox is deleted.
async fn make(attempt: &Attempt, ground: &Ground) -> crate::Finding {
    let mut got = (attempt.run)(ground).await;
    if let Ok(got) = &mut got {
        got.extend(ground.outside.noticed());
    }
    ground.sandbox.client.delete(&ground.session().state()).await.unwrap();
    got
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

#[expect(clippy::print_stderr, reason = "a test says so on standard error")]
fn say(what: &str) {
    eprintln!("left out: {what}");
}
