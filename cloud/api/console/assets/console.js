// The console's one script: live regions by htmx, charts by uPlot, the rack map by canvas.
import "htmx.org/dist/htmx.esm.js";
import "htmx.org/dist/ext/hx-csp.js";
import "htmx.org/dist/ext/hx-sse.js";
import { startCharts } from "./charts.js";
import { startLink } from "./link.js";
import { startRacks } from "./racks.js";
import { startTheme } from "./theme.js";
import { startTimes } from "./times.js";

startTheme();
startTimes();
startLink();
startCharts();
startRacks();
