-- Health of a Task, from the conditions that kstatus reads, so that Argo CD, Flux and Helm conclude the same.
-- Argo CD opens no string library for a customization.
local function progressing(message)
  return { status = "Progressing", message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return progressing("the Task is being deleted")
end

local status = obj.status or {}
if status.conditions == nil then
  return progressing("the operator has not observed this Task yet")
end
if status.observedGeneration ~= obj.metadata.generation then
  return progressing("the operator has not observed the latest change yet")
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end

if is("Accepted", "False") then
  return { status = "Degraded", message = conditions.Accepted.message }
end
if is("Reconciling", "True") then
  if is("Suspended", "True") then
    return { status = "Suspended", message = conditions.Suspended.message }
  end
  return progressing(conditions.Reconciling.message)
end
-- An annotation changes no generation. The operator ignores a longer one.
local rerun = (obj.metadata.annotations or {})["sentinelnode.dev/rerun"]
if rerun ~= nil and #rerun <= 128 and rerun ~= (status.handled or {}).rerun then
  return progressing("a rerun is requested")
end
if is("Stalled", "True") then
  return { status = "Degraded", message = conditions.Stalled.message }
end
if is("Complete", "True") then
  return { status = "Healthy", message = conditions.Complete.message }
end
return progressing("the Run has not ended")
