// The views behind the list of Tasks. They share so much that they are one file: in parts they would be larger.

import { ExecutionPage } from "./execution.js";
import { FleetPage, NodePage } from "./fleet.js";
import { FormPage } from "./form.js";
import { HistoryPage } from "./history.js";
import { LogPage } from "./log.js";
import { TaskPage } from "./task.js";

/** @type {Record<string, () => any>} By the page of the address. */
export const views = { task: TaskPage, execution: ExecutionPage, log: LogPage, fleet: FleetPage, node: NodePage, history: HistoryPage, form: FormPage };
