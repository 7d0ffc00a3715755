return call('PING')
