-- Pushes ten series to one of many groups: wrk -s push.lua URL -- GROUPS [sequential|scattered]
-- Chosen by chance; one after the other; or every hundredth.
-- Bodies are made beforehand, so that the generator costs little.
local bodies, groups, order = {}, 10, nil
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  groups = tonumber(arguments[1] or "10")
  order = arguments[2]
  math.randomseed(number + 1)
  next_group = number
  for i = 1, 64 do
    local lines = {}
    for metric = 0, 9 do
      lines[#lines + 1] = "# TYPE bench_metric_" .. metric .. " gauge"
      lines[#lines + 1] = string.format("bench_metric_%d %.3f", metric, math.random() * 1000)
    end
    bodies[i] = table.concat(lines, "\n") .. "\n"
  end
  wrk.method = "PUT"
end

function request()
  local group
  if order then
    group = next_group % groups
    next_group = next_group + (order == "scattered" and 100 or 1)
  else
    group = math.random(0, groups - 1)
  end
  return wrk.format(nil, "/metrics/job/bench/instance/machine-" .. group, nil, bodies[math.random(64)])
end

function done(summary, latency, requests)
  io.write(string.format("result: %.0f requests/s, p50 %.2f ms, p99 %.2f ms, %d errors\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
