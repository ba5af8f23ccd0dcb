# A job's image with jobmon in front: one static binary, copied.
FROM jobmon:0.1.0 AS jobmon
FROM busybox:stable
COPY --from=jobmon /jobmon /usr/local/bin/jobmon
COPY simulator.sh /simulator.sh
ENTRYPOINT ["/usr/local/bin/jobmon", "--", "/bin/sh", "/simulator.sh"]
