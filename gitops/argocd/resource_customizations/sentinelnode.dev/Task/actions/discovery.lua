local actions = {}
local status = obj.status or {}
local run = status.run
if obj.metadata.deletionTimestamp ~= nil then
  return actions
end

if run ~= nil and run.finishedAt == nil and run.stopping ~= "Cancelled" then
  actions["cancel"] = { ["displayName"] = "Cancel run", ["iconClass"] = "fa fa-fw fa-stop" }
end
if run ~= nil and run.finishedAt ~= nil then
  actions["rerun"] = { ["displayName"] = "Run again", ["iconClass"] = "fa fa-fw fa-redo" }
end
if obj.spec.suspend then
  actions["resume"] = { ["iconClass"] = "fa fa-fw fa-play" }
else
  actions["suspend"] = { ["iconClass"] = "fa fa-fw fa-pause" }
end
return actions
