// What the API answers, as far as the page uses it. Types only: operator/openapi.json is the contract.

/** @typedef {"succeeded" | "failed" | "unreachable" | "running" | "waiting"} CountName */
/** @typedef {Partial<Record<CountName, number>>} Counts */
/** @typedef {{type: string, status: string, reason: string, message: string, lastTransitionTime: string}} Condition */
/** @typedef {{number: number, trigger?: string, verdict?: string | null, startedAt?: string | null, finishedAt?: string | null, counts?: Counts}} RunStatus */
/** @typedef {{user: string, uid?: string | null, groups?: string[]}} Person */
/** @typedef {{author?: Person | null, rerun?: Person | null, unknown?: string | null}} RequestedBy */
/** @typedef {{run: number, specHash: string, targetsDigest: string, targetCount: number, firstTargets?: string[], ceiling: string, requestedBy?: string[]}} AwaitingApproval */
/** @typedef {RunStatus & {targetCount?: number, specHash?: string, stopping?: string | null, requestedBy?: RequestedBy | null, cancelledBy?: Person | null, approvedBy?: Person | null, ceiling?: {name: string, maxConcurrent?: number | null} | null}} LatestRun */

/**
 * @typedef {object} Task
 * @property {string} apiVersion
 * @property {string} kind
 * @property {{name: string, namespace: string, uid: string, resourceVersion?: string, generation?: number, creationTimestamp?: string, annotations?: Record<string, string>, labels?: Record<string, string>}} metadata
 * @property {Record<string, any>} spec
 * @property {{phase?: string | null, conditions?: Condition[], run?: LatestRun | null, awaitingApproval?: AwaitingApproval | null, recentRuns?: RunStatus[], observedGeneration?: number}} [status]
 */

/** @typedef {{bytes: number, dropped: number, sha256: string}} StreamDetails */

/**
 * @typedef {object} Details
 * @property {string} environment
 * @property {number} userMs
 * @property {number} systemMs
 * @property {number} maxRss
 * @property {StreamDetails} stdout
 * @property {StreamDetails} stderr
 * @property {number} logEnd
 * @property {number} blockedMs
 * @property {string | null} [reason]
 * @property {number | null} [signal]
 * @property {{code?: number | null, signal?: number | null, signalName?: string | null, killed: boolean, outputHeldMs?: number | null, masked?: number | null,
 *   clock?: {field: string, afterMs: number} | null, left?: {count: number, fate: string, processes?: {pid: number, name: string}[]} | null} | null} [exit]
 */

/**
 * @typedef {object} Execution
 * @property {string} namespace
 * @property {string} task
 * @property {string} taskUid
 * @property {number} run
 * @property {string} node
 * @property {number} attempt
 * @property {string} state
 * @property {string} source
 * @property {string} command
 * @property {string} specHash
 * @property {string | null} [outcome]
 * @property {string} [message]
 * @property {number | null} [exitCode]
 * @property {string | null} [startedAt]
 * @property {string | null} [endedAt]
 * @property {number | null} [durationMs]
 * @property {string | null} [trigger]
 * @property {number | null} [cpuMs]
 * @property {number | null} [maxRss]
 * @property {number | null} [outputBytes]
 * @property {Details | null} [details]
 * @property {Attempt[]} [attempts] oldest first, only of one Execution
 * @property {{message: string} | null} [partial]
 */

/** @typedef {{attempt: number, state: string, exitCode?: number | null, message?: string, source: string, startedAt?: string | null, endedAt?: string | null, durationMs?: number | null, details: Details, log: string}} Attempt */

/**
 * @typedef {object} Run
 * @property {string} namespace
 * @property {string} task
 * @property {string} taskUid
 * @property {number} run
 * @property {string} trigger
 * @property {string} command
 * @property {number} targets
 * @property {Record<string, number>} outcomes
 * @property {string | null} [verdict]
 * @property {string | null} [reason]
 * @property {RequestedBy | null} [requestedBy]
 * @property {Person | null} [cancelledBy]
 * @property {Person | null} [approvedBy]
 * @property {string | null} [startedAt]
 * @property {string | null} [finishedAt]
 */

/**
 * @typedef {object} Metrics
 * @property {number} cpuPercent
 * @property {number} cpuCount
 * @property {number} memoryUsed
 * @property {number} memoryTotal
 * @property {[number, number, number]} load
 * @property {number} uptimeSeconds
 * @property {{mount: string, total: number, available: number}[]} disks
 * @property {{interface: string, received: number, sent: number}[]} networks
 * @property {number} running
 * @property {number} [runningLimit]
 * @property {number} spooled
 */

/**
 * @typedef {object} Node
 * @property {string} name
 * @property {boolean} reachable
 * @property {string | null} [lastHeardAt]
 * @property {string | null} [agentVersion]
 * @property {string | null} [platform]
 * @property {string[]} [environments]
 * @property {Record<string, string>} [labels]
 * @property {Metrics | null} [metrics]
 */

/** @typedef {{start?: string, slotMs: number, cpu: (number | null)[], memory: (number | null)[], disk: (number | null)[], load: (number | null)[], received: (number | null)[], sent: (number | null)[]}} Samples */

/** @typedef {{line: number, position: number, stream: "stdout" | "stderr", atMicros: number, text: string, continues?: boolean, open?: boolean, node?: string}} Line */
/** @typedef {{position: number, dropped: number, reason: string, atMicros?: number, stream?: "stdout" | "stderr", node?: string}} Gap */
/** @typedef {Line | Gap} Entry */
/** @typedef {Entry & {node: string, attempt: number, at: number, late?: boolean}} Merged Of one of several logs: `at` is its position there, `position` its place among all. */
/** @typedef {{attempt: number, lines: Entry[], next: number, totalLines: number, end: number, ended: boolean}} Lines */

/** @typedef {{outcome: string, exitCode?: number | null, count: number, nodes: string, node: string, attempt: number, message: string, stdout: StreamDetails, stderr: StreamDetails}} OutputGroup */

/** @template T @typedef {{items: T[], next?: string, partial?: {message: string} | null}} List */
/** @typedef {{reason: string, message: string, field?: string | null, value?: string | null, allowed?: string | null, problems?: {field: string, value: string, allowed: string}[]}} ErrorBody */

export {};
