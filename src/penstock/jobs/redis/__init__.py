"""Jobs in Redis, shared by the processes of many machines."""
