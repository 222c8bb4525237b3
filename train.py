from carvana_unet.train_command import carvana_train

if __name__ == '__main__': carvana_train()
