-- Nothing was written. Whoever asked judges by the head of the record, and the times.
if string.sub(head, 1, 1) ~= '1' then
  return head == '' and 0 or head
end
