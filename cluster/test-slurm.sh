#!/usr/bin/env bash
# A throw-away Slurm of several virtual nodes on one machine, for tests. Needs root, slurm-wlm, slurm-client and munge.
#
#   test-slurm.sh start DIR             start it; everything it writes lies in DIR
#   test-slurm.sh run DIR COMMAND...    run a command that sees it, with DIR in $SLURM_TEST_DIR
#   test-slurm.sh stop DIR              cancel all jobs, end all its processes
#
# NODES (3) and CPUS (2 a node) may be set for start. The daemons listen on 127.0.0.1 only; several such Slurms, and a
# real one, can live side by side. Memory and CPUs are what the nodes claim, nothing holds jobs to them.
set -euo pipefail

die() {
    echo "test-slurm.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# wait_until SECONDS COMMAND...: try the command until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Whether a process of that name lives; one that ended and waits to be reaped (Z) does not count.
lives() {
    pgrep --runstates R,S,D -x "$1" >/dev/null
}

port_is_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Print the first of COUNT neighbouring ports that nobody listens on, below those that the kernel gives to clients.
free_ports() {
    local count=$1 base offset
    for _ in {1..50}; do
        base=$((20000 + RANDOM % 12000))
        for ((offset = 0; offset < count; offset++)); do
            port_is_taken $((base + offset)) && continue 2
        done
        echo "$base"
        return
    done
    die "found no free ports"
}

write_configuration() {
    local port first_node last_node
    port=$(free_ports $((NODES + 1)))
    first_node=$((port + 1))
    last_node=$((port + NODES))
    cat >"$DIR/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=$port
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=1
ReturnToService=2
SlurmdTimeout=10
KillWait=5
PropagateResourceLimits=NONE
StateSaveLocation=$DIR/state
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmdSpoolDir=$DIR/spool/%n
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdParameters=config_overrides
NodeName=n[1-$NODES] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[$first_node-$last_node] CPUs=$CPUS RealMemory=6000 State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE State=UP
END
}

# Slurm's daemons and commands recognise each other by munge. One munge serves all; whoever stops the last Slurm ends
# the munge that was started here, never one that was running before. MUNGE_LOCK keeps one Slurm from ending what
# another is about to use; no daemon may inherit it.
start_munge() {
    lives munged && return
    install -d -o munge -g munge -m 755 /run/munge
    # One that is ending keeps its socket for a moment.
    wait_until 30 runuser -u munge -- /usr/sbin/munged 2>"$DIR/log/munged.log" || {
        cat "$DIR/log/munged.log" >&2
        die "munge did not start"
    }
    touch "$MUNGE_MARK"
}

no_munge() {
    ! lives munged
}

stop_munge() {
    [[ -e $MUNGE_MARK ]] || return 0
    lives slurmctld && return
    kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true
    wait_until 30 no_munge || true
    rm -f "$MUNGE_MARK"
}

nodes_are_idle() {
    [[ $(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l) -eq $NODES ]]
}

queue_is_empty() {
    [[ -z $(squeue --noheader 2>/dev/null) ]]
}

start() {
    [[ $(id -u) -eq 0 ]] || die "needs root"
    [[ $DIR != *[[:space:]]* ]] || die "Slurm cannot have blanks in the path $DIR"
    # A socket of each job lies below, and such a name has 107 characters at most.
    ((${#DIR} <= 70)) || die "$DIR is too long a path for the sockets of jobs; take one of up to 70 characters"
    [[ ! -e $SLURM_CONF ]] || die "$DIR has a Slurm already; stop it, or take another directory"
    command -v slurmctld slurmd munged >/dev/null || die "needs the packages slurm-wlm, slurm-client and munge"
    local node
    mkdir -p "$DIR"/{state,run,log,spool}
    write_configuration
    {
        flock 9
        start_munge 9>&-
        slurmctld -i -f "$SLURM_CONF" 9>&-
    } 9>"$MUNGE_LOCK"
    for ((node = 1; node <= NODES; node++)); do
        mkdir -p "$DIR/spool/n$node"
        slurmd -N "n$node" -f "$SLURM_CONF"
    done
    wait_until 60 nodes_are_idle || {
        tail -n 5 "$DIR"/log/*.log >&2
        stop
        die "the nodes did not come up"
    }
}

environment_of() {
    { tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null || true
}

# Processes of this Slurm: its daemons, and whatever runs in its jobs. Not the caller, who may have SLURM_CONF set too.
own_processes() {
    local process pid name environment
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        name=$(cat "$process/comm" 2>/dev/null) || continue
        environment=$(environment_of "$pid")
        grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$environment" || continue
        if [[ $name == slurm* ]] || grep -q '^SLURM_JOB_ID=' <<<"$environment"; then
            echo "$pid"
        fi
    done
}

none_left() {
    [[ -z $(own_processes) ]]
}

stop() {
    [[ -e $SLURM_CONF ]] || die "there is no Slurm in $DIR"
    local pid
    # A controller that is down would be waited for; then all that is left to do is to kill the processes.
    if scontrol ping 2>/dev/null | grep -q 'is UP'; then
        squeue --noheader --format=%A | xargs -r scancel || true
        wait_until 20 queue_is_empty || true
        scontrol shutdown 2>/dev/null || true
        wait_until 10 none_left || true
    fi
    if ! none_left; then
        for pid in $(own_processes); do
            kill -KILL "$pid" 2>/dev/null || true
        done
    fi
    {
        flock 9
        stop_munge 9>&-
    } 9>"$MUNGE_LOCK"
    rm -rf "$SLURM_CONF" "${DIR:?}"/{state,run,spool}
}

[[ $# -ge 2 ]] || usage
command=$1
DIR=$(realpath -m "$2")
shift 2
NODES=${NODES:-3}
CPUS=${CPUS:-2}
PATH=$PATH:/usr/sbin:/sbin
MUNGE_MARK=/run/munge/started-by-test-slurm
MUNGE_LOCK=/run/lock/test-slurm-munge
export SLURM_CONF=$DIR/slurm.conf SLURM_TEST_DIR=$DIR

case $command in
start) start ;;
stop) stop ;;
run) exec "$@" ;;
*) usage ;;
esac
