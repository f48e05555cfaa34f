-- The server's time in ms. Asked for before anything is written: a script that fails is not undone.
local time = redis.call('TIME')
local now = math.floor(time[1] * 1000 + time[2] / 1000)
