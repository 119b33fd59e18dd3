-- An annotation, which is not a difference to what Git has. It names the Run, so it cannot cancel a later one.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["sentinelnode.dev/cancel"] = tostring(obj.status.run.number)
return obj
