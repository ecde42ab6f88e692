/*
 * redoubt_guard: a commit that this PostgreSQL shows to anybody is one that the quorum has flushed
 * (rule C2).
 *
 * Stock synchronous replication has four ways around the wait for the standby, and each is closed
 * where it opens:
 *
 *   G1  A wait that is cancelled or terminated ends, and the transaction becomes visible. Both
 *       arrive as signals. So SIGINT and SIGTERM are blocked from before the commit record is
 *       written until the transaction is over, and with them the time-outs, which send SIGINT. They
 *       are not lost: the kernel keeps them, and they are taken once the commit is durable. What
 *       had arrived before is taken before, while the transaction can still be aborted.
 *       Nothing here depends on what is logged, so no level of log messages switches it off.
 *   G2  synchronous_commit below "on" does not wait at all. A check hook on that setting raises
 *       every lower value to "on", whoever asks: sessions, functions, roles, files, autovacuum
 *       workers, subscriptions. SET succeeds, so that programs which ask for less go on working.
 *   G3  While PostgreSQL has no synchronous standby configured, which is also so until its
 *       checkpointer has read the configuration, commits do not wait. They fail instead.
 *   G4  A prepared transaction is ended by a utility command, inside which the wait takes place.
 *       G1 and G3 cover that command as a whole.
 *
 * And it marks what the agent says (C7):
 *
 *   G5  The agent writes files that PostgreSQL does not log as logical messages, and everybody may
 *       emit messages. So its sessions, whom pg_hba.conf lets in by their system user alone, write
 *       with the origin DoNotReplicateId, which no other session can take.
 *
 * What is not held: the death of the postmaster (every process ends with it, and no new session is
 * let in), SIGQUIT and SIGKILL (no commit is reported by a process that was killed; a crash follows
 * for all, and Redoubt restarts from a base backup), COMMIT PREPARED by the apply worker of a
 * subscription with two_phase = on, which runs no utility command (its wait can be terminated), and
 * a superuser, who can load code of his own.
 */
#include "postgres.h"

/* Port is laid out the same without them, and their headers need not be installed. */
#undef ENABLE_GSS
#undef USE_OPENSSL

#include <signal.h>

#include "access/xact.h"
#include "fmgr.h"
#include "libpq/auth.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/origin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/* What the blocked section will put back; meaningful while `holding`. */
static sigset_t mask_before;
static bool holding = false;

static ProcessUtility_hook_type next_utility = NULL;
static ClientAuthentication_hook_type next_authentication = NULL;

#define AGENT "redoubt_agent"

/* G1: cancel and terminate wait for us from here on. */
static void
hold_signals(void)
{
	sigset_t	held;

	if (holding)
		return;
	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &held, &mask_before) != 0)
		ereport(ERROR,
				(errmsg("redoubt_guard: signals cannot be blocked: %m")));
	holding = true;
}

static void
release_signals(void)
{
	if (!holding)
		return;
	holding = false;
	/* Fails for arguments that make no sense only. */
	(void) sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

/*
 * What arrived before the signals were blocked has left a flag, on which the wait would give up.
 * Here the transaction can still be aborted.
 */
static void
take_what_has_arrived(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ProcDiePending || QueryCancelPending)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement before its commit")));
}

/* G3 */
static void
require_quorum(void)
{
#ifdef SYNC_STANDBY_DEFINED
	bool		defined = (WalSndCtl->sync_standbys_status & SYNC_STANDBY_DEFINED) != 0;
#else
	/* Minor versions of before 2025 */
	bool		defined = WalSndCtl->sync_standbys_defined;
#endif

	if (!defined)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("no commit is possible: the quorum is not configured yet"),
				 errhint("Try again in a moment. If this stays, synchronous_standby_names is empty, which a Redoubt compute must not have.")));
}

/* G2, where the setting was not changed by way of its check hook. */
static void
require_wait(void)
{
	if (synchronous_commit < SYNCHRONOUS_COMMIT_ON)
		SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_SESSION);
}

/* A backend of a running server: initdb and single-user mode have no standby to wait for. */
static bool
guarded(void)
{
	return IsUnderPostmaster && !IsBootstrapProcessingMode();
}

static void
guard_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			/* Without an xid there is no commit record, and nothing to wait for. */
			if (!guarded() ||
				!TransactionIdIsValid(GetTopTransactionIdIfAny()))
				break;
			require_quorum();
			require_wait();
			hold_signals();
			take_what_has_arrived();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			release_signals();
			break;
		default:
			/* Parallel workers write no commit record. */
			break;
	}
}

static bool
ends_prepared(const PlannedStmt *statement)
{
	const Node *node = statement->utilityStmt;

	if (!IsA(node, TransactionStmt))
		return false;
	switch (((const TransactionStmt *) node)->kind)
	{
		case TRANS_STMT_COMMIT_PREPARED:
		case TRANS_STMT_ROLLBACK_PREPARED:
			return true;
		default:
			return false;
	}
}

static void
guard_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params,
			  QueryEnvironment *environment, DestReceiver *dest,
			  QueryCompletion *completion)
{
	ProcessUtility_hook_type next = next_utility ? next_utility : standard_ProcessUtility;

	if (!guarded() || !ends_prepared(statement))
	{
		next(statement, text, read_only_tree, context, params, environment,
			 dest, completion);
		return;
	}
	require_quorum();
	require_wait();
	/* An error is followed by an abort, which releases. */
	hold_signals();
	take_what_has_arrived();
	next(statement, text, read_only_tree, context, params, environment, dest,
		 completion);
	release_signals();
}

/* G2 */
static bool
raise_synchronous_commit(int *value, void **extra, GucSource source)
{
	if (*value >= SYNCHRONOUS_COMMIT_ON)
		return true;
	if (source == PGC_S_SESSION && IsTransactionState())
		ereport(NOTICE,
				(errmsg("synchronous_commit stays at \"on\""),
				 errdetail("Commits are acknowledged once a majority of the safekeepers has them.")));
	*value = SYNCHRONOUS_COMMIT_ON;
	return true;
}

/* G5 */
static void
mark_agent(Port *port, int status)
{
	if (next_authentication)
		next_authentication(port, status);
	if (status == STATUS_OK && strcmp(port->user_name, AGENT) == 0)
		replorigin_session_origin = DoNotReplicateId;
}

static struct config_generic *
find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, false, FATAL);
#else
	struct config_generic **all = get_guc_variables();
	int			count = GetNumConfigOptions();

	for (int i = 0; i < count; i++)
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	return NULL;
#endif
}

static void
guard_setting(void)
{
	struct config_generic *found = find_setting("synchronous_commit");
	struct config_enum *setting = (struct config_enum *) found;

	if (found == NULL || found->vartype != PGC_ENUM || setting->check_hook != NULL)
		ereport(FATAL,
				(errmsg("redoubt_guard does not know synchronous_commit of this PostgreSQL")));
	setting->check_hook = raise_synchronous_commit;
	/* What the configuration said before the hook was there. */
	if (synchronous_commit < SYNCHRONOUS_COMMIT_ON)
		SetConfigOption("synchronous_commit", "on", PGC_POSTMASTER, PGC_S_OVERRIDE);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("redoubt_guard must be loaded by shared_preload_libraries")));
	guard_setting();
	RegisterXactCallback(guard_transaction, NULL);
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = guard_utility;
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = mark_agent;
}
