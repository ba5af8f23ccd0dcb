# Pushes metrics with the Ruby client that Debian has; called with the gateway's URL and what to do.
require "prometheus/client"
require "prometheus/client/push"

url, step = ARGV
registry = Prometheus::Client::Registry.new
push = Prometheus::Client::Push.new(job: "ruby", instance: "a b", gateway: url)
answer =
  case step
  when "push"
    registry.gauge(:temperature, "How warm it is.").set({ room: "kitchen\n\"" }, 21.5)
    registry.counter(:items_total, "How many.").increment({}, 3)
    # What Debian has cannot write histograms and summaries when it pushes.
    push.replace(registry)
  when "add"
    registry.gauge(:more, "What comes later.").set({}, 1)
    push.add(registry)
  when "replace"
    registry.gauge(:only, "What is left.").set({}, 1)
    push.replace(registry)
  else
    push.delete
  end
abort "#{answer.code} #{answer.body}" unless answer.code.start_with?("2")
