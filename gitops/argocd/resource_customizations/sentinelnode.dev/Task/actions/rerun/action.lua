-- An annotation, which is not a difference to what Git has. Its value depends on the Run alone: a second click before the
-- next Run begins requests the same one.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sentinelnode.dev/rerun"] = "after-run-" .. tostring(obj.status.run.number)
return obj
